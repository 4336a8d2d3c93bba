//! The tables of the configuration and of the metrics.

use jobwatch::config;
use jobwatch::ops::metrics::{CATALOGUE, Entry};
use serde_json::Value;

use crate::page::{CONFIGURATION, Words, code, keys};

#[test]
fn the_tables_of_the_configuration_have_every_key() {
    let schema = config::schema();
    let rows = CONFIGURATION.table("table");
    let row = |head: &str| -> Words {
        let row = rows.iter().find(|row| row[0] == head).unwrap_or_else(|| panic!("no row `{head}`"));
        code(&row[1]).iter().map(|word| word.split(' ').next().unwrap().trim_matches('"').to_owned()).collect()
    };
    let lacks = |head: &[&str], keys: Words| {
        let here: Words = head.iter().flat_map(|head| row(head)).collect();
        let missing: Vec<&String> = keys.difference(&here).collect();
        assert_eq!(missing, [] as [&String; 0], "{head:?}");
    };
    lacks(&["`[agent]`"], keys(&schema, "/properties/agent"));
    lacks(&["`[admin]`"], keys(&schema, "/properties/admin"));
    lacks(&["`[retention]`"], keys(&schema, "/properties/retention"));
    lacks(&["`[window.NAME]`"], keys(&schema, "/properties/window/additionalProperties"));
    let alternatives = |place: &Value| -> Vec<Value> {
        let one = ["oneOf", "anyOf"].iter().find_map(|word| place[*word].as_array().cloned());
        one.unwrap_or_else(|| vec![place.clone()])
    };
    for source in alternatives(&schema["properties"]["source"]["items"]) {
        lacks(&["`[[source]]`, and `[source_defaults]` for all of them"], keys(&source, ""));
    }
    for follow_up in alternatives(&schema["properties"]["follow_up"]["additionalProperties"]) {
        let kind = follow_up["properties"]["kind"]["const"].as_str().unwrap();
        lacks(&[&format!("`[follow_up.NAME]` of kind `{kind}`"), "every follow-up"], keys(&follow_up, ""));
    }
    for receiver in alternatives(&schema["properties"]["receiver"]["additionalProperties"]) {
        let kind = receiver["properties"]["kind"]["const"].as_str().unwrap();
        lacks(&[&format!("`[receiver.NAME]` of kind `{kind}`"), "every receiver"], keys(&receiver, ""));
    }
}

#[test]
fn the_table_of_metrics_is_the_catalogue() {
    let rows = CONFIGURATION.table("metric");
    let meant = |entry: &Entry| {
        let labels = if entry.labels.is_empty() { String::new() } else { format!("{{{}}}", entry.labels.join(",")) };
        vec![format!("`{}{labels}`", entry.name), entry.kind.as_str().to_owned(), entry.help.to_owned()]
    };
    assert_eq!(rows, CATALOGUE.iter().map(meant).collect::<Vec<_>>());
}
