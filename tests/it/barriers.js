// What bars somebody from the page who reads it with a screen reader, the keyboard alone, or weak eyes. Returns a list of
// complaints. axe-core is asked as well where it is installed; this much holds without it.
const found = [];
const say = (what, node) => found.push(node ? `${what}: ${node.outerHTML.slice(0, 200)}` : what);
const all = (selector) => [...document.querySelectorAll(selector)];

if (!document.documentElement.lang) say("the page has no language");
if (!document.title.trim()) say("the page has no title");
for (const landmark of ["header", "main", "footer"]) {
  if (all(`body > ${landmark}`).length !== 1) say(`there is not one ${landmark}`);
}

let level = 0;
for (const heading of all("h1, h2, h3, h4")) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) say("a heading skips a level", heading);
  if (!heading.textContent.trim()) say("a heading is empty", heading);
  level = next;
}
if (all("h1").length !== 1) say("there is not one first heading");

const ids = all("[id]").map((node) => node.id);
for (const id of ids) if (ids.filter((other) => other === id).length > 1) say(`the id ${id} is used twice`);
for (const link of all('a[href^="#"]')) if (!document.getElementById(link.hash.slice(1))) say("a link leads nowhere", link);
for (const section of all("section[aria-labelledby]")) {
  if (!document.getElementById(section.getAttribute("aria-labelledby"))) say("a section's name is not there", section);
}
for (const node of all("a, button, summary")) if (!node.textContent.trim()) say("a control has no name", node);
for (const image of all("svg")) if (!image.getAttribute("aria-label")) say("a picture has no words", image);
for (const time of all("time")) if (Number.isNaN(Date.parse(time.dateTime))) say("a time is none", time);
for (const table of all("table")) {
  if (!table.querySelector("thead th[scope=col]")) say("a table has no head", table);
  for (const row of table.querySelectorAll("tbody tr")) {
    if (!row.querySelector("th[scope=row], td[colspan]")) say("a row has no head", row);
  }
}
for (const node of all("[tabindex]")) if (node.tabIndex > 0) say("the order of the keyboard is bent", node);

// Contrast as WCAG 2 counts it; every text here is small or may be.
const rgb = (text) => text.match(/[\d.]+/g).map(Number);
const shine = ([r, g, b]) => {
  const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const behind = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const colour = rgb(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const seen = new Set();
for (const node of all("body *")) {
  const own = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim());
  if (!own || !node.checkVisibility() || node.closest("svg")) continue;
  const [a, b] = [rgb(getComputedStyle(node).color), behind(node)].map(shine).sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const key = `${getComputedStyle(node).color} on ${behind(node)}`;
  if (ratio < 4.5 && !seen.has(key)) say(`${key} is ${ratio.toFixed(2)} to 1`, node);
  seen.add(key);
}
return found;
