//! Pages without I/O: which page to read next, and whether what was read is one unbroken listing.
//!
//! Offset paging over a list that changes meanwhile skips and repeats rows. The pager notices: `total` must be the same
//! on every page, no id may come twice, the number of rows must be `total`, and when there was more than one page, the
//! first is read again at the end and must be as it was: then nothing was inserted or removed in front of what was read.
//! Offsets are always multiples of the limit, as sibling lists of the service demand.

use std::collections::HashMap;

use crate::model::index::Key;
use crate::model::job::Job;
use crate::model::listing::Rows;

/// The API's largest page.
pub const LIMIT: usize = 100;
/// More pages than this are not read: half a million jobs in one project are a fault of the answer.
const PAGES_MAX: usize = 5_000;

/// One page as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// How many jobs there are, says the page.
    pub total: usize,
    /// The readable rows.
    pub rows: Vec<Row>,
    /// Rows that had no id or no status.
    pub unreadable: usize,
}

/// A row of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which job it is about.
    pub key: Key,
    /// What it says, if that is news.
    pub job: Option<Job>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Read the page at this offset with this limit.
    Read {
        /// Rows to skip.
        offset: usize,
        /// Rows to ask for.
        limit: usize,
    },
    /// The listing is whole.
    Whole(Rows),
    /// The listing moved while it was read, or the numbers do not add up. The rows are true all the same.
    Broken {
        /// What was read.
        rows: Rows,
        /// What does not fit.
        why: String,
    },
}

/// One reading of the listing.
#[derive(Debug)]
pub struct Pager {
    limit: usize,
    offset: usize,
    pages: usize,
    total: Option<usize>,
    rows: Rows,
    news: HashMap<Key, usize>,
    first: Vec<Key>,
    closing: bool,
}

impl Default for Pager {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl Pager {
    /// A reading in pages of this length.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            offset: 0,
            pages: 0,
            total: None,
            rows: Rows::default(),
            news: HashMap::new(),
            first: Vec::new(),
            closing: false,
        }
    }

    /// The first step.
    pub fn start(&self) -> Step {
        Step::Read { offset: self.offset, limit: self.limit }
    }

    /// The offsets that will be asked for after the present one, as far as that is certain: they can be read meanwhile.
    pub fn ahead(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let end = if self.closing { 0 } else { self.total.unwrap_or(0).min(self.limit * PAGES_MAX) };
        (self.offset + self.limit..end).step_by(self.limit)
    }

    /// Takes the page that was asked for and says what to do next.
    pub fn take(&mut self, page: Page) -> Step {
        if self.closing {
            return self.close(&page);
        }
        let count = page.rows.len() + page.unreadable;
        if self.pages == 0 {
            if count > 0 && count < self.limit && count < page.total {
                // The server gives smaller pages than it was asked for: begin again with its size, so that offsets stay aligned.
                *self = Self::with_limit(count);
                return self.start();
            }
            self.first = page.rows.iter().map(|row| row.key).collect();
        }
        self.pages += 1;
        let total = page.total;
        let repeated = self.keep(page);
        if *self.total.get_or_insert(total) != total {
            return self.broken(format!("`total` changed from {} to {total} between pages", self.total.unwrap_or(0)));
        }
        if repeated {
            return self.broken("a job is on two pages".into());
        }
        let end = self.offset + count;
        if self.pages > PAGES_MAX {
            return self.broken(format!("more than {PAGES_MAX} pages"));
        }
        if count == self.limit {
            self.offset += self.limit;
            // A full page at the end may be followed by more than `total` admits: only an empty page proves the end.
            return Step::Read { offset: self.offset, limit: self.limit };
        }
        if end != total {
            return self.broken(format!("the listing ends after {end} rows, but `total` is {total}"));
        }
        // All rows from one answer: nothing can have moved between pages.
        if self.pages == 1 || self.pages == 2 && count == 0 {
            return Step::Whole(std::mem::take(&mut self.rows));
        }
        self.closing = true;
        Step::Read { offset: 0, limit: self.limit }
    }

    /// The first page once more.
    fn close(&mut self, page: &Page) -> Step {
        let same = page.rows.iter().map(|row| row.key).eq(self.first.iter().copied());
        if same && Some(page.total) == self.total {
            return Step::Whole(std::mem::take(&mut self.rows));
        }
        self.broken("the first page changed while the others were read".into())
    }

    /// Keeps a page's rows, the newest of each job. Returns whether a job came twice.
    fn keep(&mut self, page: Page) -> bool {
        let mut repeated = false;
        self.rows.unreadable += page.unreadable;
        for Row { key, job } in page.rows {
            repeated |= !self.rows.listed.insert(key);
            let Some(job) = job else { continue };
            match self.news.get(&key) {
                Some(&at) => {
                    let known = &mut self.rows.jobs[at];
                    // The newer one; of two as new, the final one; of two final ones, the failure.
                    let rank = |job: &Job| (job.updated(), job.status.is_final(), job.status.as_str() == "Failed");
                    if rank(&job) > rank(known) {
                        *known = job;
                    }
                }
                None => {
                    self.news.insert(key, self.rows.jobs.len());
                    self.rows.jobs.push(job);
                }
            }
        }
        repeated
    }

    fn broken(&mut self, why: String) -> Step {
        Step::Broken { rows: std::mem::take(&mut self.rows), why }
    }

    /// What was read so far, when a page could not be.
    pub fn abandon(self) -> Rows {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, Page, Pager, Row, Step};
    use crate::model::index::Index;
    use crate::model::job::{Job, Status};
    use proptest::prelude::*;

    fn page(ids: &[usize], total: usize) -> Page {
        static INDEX: std::sync::LazyLock<Index> = std::sync::LazyLock::new(Index::default);
        let job = |id: &usize| Job::bare(format!("{id:06}"), Status::Running);
        let row = |job: Job| Row { key: INDEX.key(job.id.as_str()), job: Some(job) };
        Page { total, rows: ids.iter().map(job).map(row).collect(), unreadable: 0 }
    }

    /// Reads a list that `change` may alter before each page.
    fn read(mut list: Vec<usize>, mut cap: usize, mut change: impl FnMut(usize, &mut Vec<usize>)) -> (Step, usize) {
        let mut pager = Pager::default();
        let mut step = pager.start();
        let mut reads = 0;
        cap = cap.min(LIMIT);
        while let Step::Read { offset, limit } = step {
            assert_eq!(offset % limit, 0, "offsets are multiples of the limit");
            change(reads, &mut list);
            reads += 1;
            let rows: Vec<usize> = list.iter().skip(offset).take(limit.min(cap)).copied().collect();
            step = pager.take(page(&rows, list.len()));
        }
        (step, reads)
    }

    #[test]
    fn a_listing_that_stands_still_is_whole_whatever_its_length() {
        for (length, expected_reads) in [(0, 1), (1, 1), (99, 1), (100, 2), (101, 3), (250, 4)] {
            let (step, reads) = read((0..length).collect(), LIMIT, |_, _| {});
            let Step::Whole(rows) = step else { panic!("{length} jobs: {step:?}") };
            assert_eq!((rows.jobs.len(), reads), (length, expected_reads), "{length} jobs");
        }
    }

    #[test]
    fn a_server_with_smaller_pages_is_read_in_its_own_steps() {
        let (step, _) = read((0..95).collect(), 30, |_, _| {});
        let Step::Whole(rows) = step else { panic!("{step:?}") };
        assert_eq!(rows.jobs.len(), 95);
    }

    #[test]
    fn a_job_inserted_in_front_while_reading_breaks_the_listing() {
        let (step, _) = read((0..250).collect(), LIMIT, |reads, list| {
            if reads == 1 {
                list.insert(0, 999);
            }
        });
        assert!(matches!(step, Step::Broken { .. }), "{step:?}");
    }

    #[test]
    fn a_job_that_goes_while_another_comes_breaks_the_listing_though_the_total_stands() {
        let (step, _) = read((0..250).collect(), LIMIT, |reads, list| {
            if reads == 1 {
                list.remove(0);
                list.push(999);
            }
        });
        assert!(matches!(step, Step::Broken { .. }), "job 100 slipped from the second page to the first: {step:?}");
    }

    #[test]
    fn a_total_that_promises_more_than_there_is_breaks_the_listing() {
        let mut pager = Pager::default();
        assert!(matches!(pager.take(page(&[], 7)), Step::Broken { .. }));
    }

    proptest! {
        /// One insertion or removal at any place before any page: a listing that is called whole misses nobody who was
        /// there all the time. (A removal *and* an insertion can still hide one: that is why absence needs three listings.)
        #[test]
        fn a_whole_listing_misses_no_job_that_stood_still(
            length in 0..450_usize, before in 0..7_usize, at in 0..450_usize, insert: bool,
        ) {
            let (step, _) = read((0..length).collect(), LIMIT, |reads, list| {
                if reads == before {
                    if insert { list.insert(at.min(list.len()), 999_999) } else if at < list.len() { list.remove(at); }
                }
            });
            if let Step::Whole(rows) = step {
                for id in (0..length).filter(|id| insert || *id != at) {
                    let name = format!("{id:06}");
                    prop_assert!(rows.jobs.iter().any(|job| job.id.as_str() == name), "{name} is missing");
                }
            }
        }
    }
}
