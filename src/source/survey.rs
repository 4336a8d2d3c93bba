//! How a listing is read: whole, or only what can change.
//!
//! **Whole**: every page, side by side after the first, once more if it moved meanwhile ([`Pager`] notices).
//!
//! **Brief**, when there are many jobs and few at work: the three unfinished statuses through the `status` filter, the
//! single-job call for those that left them, and the number of all jobs. When the number is what it must be, nothing else
//! can have happened except changes of words in ended jobs, and a deletion together with an addition that ended at once;
//! the next whole listing finds those. When it is not, the listing is read whole at once. Nothing relies on the order of
//! the listing, nor on what `total` means under a filter.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use futures_util::stream::{self, StreamExt as _};

use super::pager::{LIMIT, Page, Pager, Row, Step};
use crate::model::index::{Index, Key};
use crate::model::job::{Job, Status};
use crate::model::listing::{Fault, FaultKind, Listing, Point, Rows};
use crate::model::name::JobId;

/// A listing that moves while it is read is read again this often before it is called incomplete.
const READINGS_MAX: usize = 3;
/// Pages of one listing that are asked for at once.
const PAGES_AT_ONCE: usize = 4;
/// The unfinished statuses that the API documents and filters by.
const UNFINISHED: [Status; 3] = [Status::Creating, Status::Initializing, Status::Running];
/// With more pages of one unfinished status than this, a brief look costs as much as a whole one.
const FILTERED_PAGES_MAX: usize = 20;
/// More jobs than this are not asked for one by one.
const SINGLES_MAX: usize = 100;
/// Brief looks whose numbers a whole listing could not explain before they are given up.
const UNEXPLAINED_MAX: u32 = 3;
/// The smallest page that is asked for.
const LIMIT_MIN: usize = 25;
/// Whole listings in a row before pages grow again.
const CALM: u32 = 10;

/// Where pages come from.
pub trait Shelf: Sync {
    /// A page, of jobs in this status alone if one is given. Rows that say what the index knows come without their job.
    fn page(
        &self,
        status: Option<&Status>,
        offset: usize,
        limit: usize,
        index: &Index,
    ) -> impl Future<Output = Result<Page, Fault>> + Send;

    /// One job.
    fn show(&self, id: &JobId) -> impl Future<Output = Result<Point, Fault>> + Send;
}

/// What is remembered of one source's answers. Nothing of it has to survive.
#[derive(Debug)]
pub struct Survey {
    limit: AtomicUsize,
    calm: AtomicU32,
    unexplained: AtomicU32,
    distrust: std::sync::OnceLock<String>,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            limit: AtomicUsize::new(LIMIT),
            calm: AtomicU32::new(0),
            unexplained: AtomicU32::new(0),
            distrust: std::sync::OnceLock::new(),
        }
    }
}

/// Why a brief look does not do.
enum Brief {
    Rows(Rows),
    /// The listing has to be read whole; `true` if it should have something to show for it.
    Unclear {
        suspicious: bool,
    },
    /// The far end does not do what its documents say.
    Untrue(String),
    Fault(Fault),
}

impl Survey {
    /// Reads the listing; `whole` if only every page will do.
    pub async fn list(&self, shelf: &impl Shelf, index: &Index, whole: bool) -> Listing {
        if whole || self.distrust.get().is_some() {
            return self.whole(shelf, index).await;
        }
        match self.brief(shelf, index).await {
            Brief::Rows(rows) => {
                self.unexplained.store(0, Ordering::Relaxed);
                Listing::Brief(rows)
            }
            Brief::Fault(fault) => Listing::Incomplete { rows: Rows::default(), fault },
            Brief::Untrue(why) => {
                // The first reason stays.
                drop(self.distrust.set(why));
                self.whole(shelf, index).await
            }
            Brief::Unclear { suspicious } => {
                let listing = self.whole(shelf, index).await;
                if suspicious && let Listing::Complete(rows) = &listing {
                    self.judge(rows, index);
                }
                listing
            }
        }
    }

    /// What the operator should know of the far end.
    pub fn remark(&self) -> Option<String> {
        self.distrust.get().map(|why| format!("every poll lists in full, because {why}"))
    }

    /// The numbers did not add up: does the whole listing show why?
    fn judge(&self, rows: &Rows, index: &Index) {
        let explained = !index.unlisted(&rows.listed).is_empty() || rows.listed.iter().any(|key| !index.has(*key));
        if explained {
            self.unexplained.store(0, Ordering::Relaxed);
        } else if self.unexplained.fetch_add(1, Ordering::Relaxed) + 1 >= UNEXPLAINED_MAX {
            drop(self.distrust.set("`total` does not count all jobs".into()));
        }
    }

    async fn whole(&self, shelf: &impl Shelf, index: &Index) -> Listing {
        let (mut read, mut last) = (Rows::default(), String::new());
        for _ in 0..READINGS_MAX {
            match self.reading(shelf, index).await {
                Ok(Step::Whole(rows)) => {
                    if self.calm.fetch_add(1, Ordering::Relaxed) + 1 >= CALM {
                        self.limit.store(LIMIT, Ordering::Relaxed);
                    }
                    return Listing::Complete(rows);
                }
                Ok(Step::Broken { rows, why }) => {
                    // What slipped through one reading is in another.
                    merge(&mut read, rows);
                    last = why;
                }
                Ok(Step::Read { .. }) => {}
                Err((rows, fault)) => {
                    merge(&mut read, rows);
                    return Listing::Incomplete { rows: read, fault };
                }
            }
        }
        let text = format!("the listing moved while it was read, {READINGS_MAX} times: {last}");
        Listing::Incomplete { rows: read, fault: Fault { kind: FaultKind::Shifted, text, retry_after: None } }
    }

    /// The service was too slow for its gateway: smaller pages from the next listing on.
    pub fn too_slow(&self) {
        let smaller = (self.limit.load(Ordering::Relaxed) / 2).max(LIMIT_MIN);
        self.limit.store(smaller, Ordering::Relaxed);
        self.calm.store(0, Ordering::Relaxed);
    }

    async fn reading(&self, shelf: &impl Shelf, index: &Index) -> Result<Step, (Rows, Fault)> {
        let mut pager = Pager::with_limit(self.limit.load(Ordering::Relaxed));
        let mut step = pager.start();
        while let Step::Read { offset, limit } = step {
            let offsets = std::iter::once(offset).chain(pager.ahead());
            let mut pages = stream::iter(offsets.clone().zip(offsets.skip(1).map(Some).chain([None])))
                .map(|(offset, next)| async move { (shelf.page(None, offset, limit, index).await, next) })
                .buffered(PAGES_AT_ONCE);
            while let Some((page, next)) = pages.next().await {
                match page {
                    Ok(page) => step = pager.take(page),
                    Err(fault) => {
                        drop(pages);
                        return Err((pager.abandon(), fault));
                    }
                }
                // What was read ahead is of use only if it is what the pager wants next.
                if next.is_none_or(|next| step != Step::Read { offset: next, limit }) {
                    break;
                }
            }
        }
        Ok(step)
    }

    async fn brief(&self, shelf: &impl Shelf, index: &Index) -> Brief {
        let mut rows = Rows::default();
        let mut looks =
            stream::iter(UNFINISHED).map(|status| filtered(shelf, index, status)).buffered(UNFINISHED.len());
        while let Some(look) = looks.next().await {
            match look {
                Ok(found) => found.into_iter().for_each(|row| add(&mut rows, row)),
                Err(brief) => return brief,
            }
        }
        drop(looks);
        let left: Vec<JobId> =
            index.unfinished().iter().filter(|id| !rows.listed.contains(&index.key(id.as_str()))).cloned().collect();
        if left.len() > SINGLES_MAX {
            return Brief::Unclear { suspicious: false };
        }
        let mut points = stream::iter(left).map(|id| async move { shelf.show(&id).await }).buffered(PAGES_AT_ONCE);
        while let Some(point) = points.next().await {
            match point {
                Ok(Point::Found(job)) if UNFINISHED.contains(&job.status) => {
                    // It moved between two of the filters while they were read, or a filter is not true.
                    return Brief::Unclear { suspicious: true };
                }
                Ok(Point::Found(job)) => {
                    let key = index.key(job.id.as_str());
                    let job = index.is_news(&job).then_some(job);
                    add(&mut rows, Row { key, job });
                }
                Ok(Point::NotFound) => return Brief::Unclear { suspicious: false },
                Ok(Point::Unknown) => {
                    let text = "the single-job call gave no answer that can be read".to_owned();
                    return Brief::Fault(Fault { kind: FaultKind::Malformed, text, retry_after: None });
                }
                Err(fault) => return Brief::Fault(fault),
            }
        }
        drop(points);
        let fresh = rows.listed.iter().filter(|key| !index.has(**key)).count();
        match shelf.page(None, 0, 1, index).await {
            Ok(page) if page.total == index.len() + fresh => Brief::Rows(rows),
            Ok(_) => Brief::Unclear { suspicious: true },
            Err(fault) => Brief::Fault(fault),
        }
    }
}

/// A later reading over an earlier one; of a job that both show, the newer row.
fn merge(into: &mut Rows, later: Rows) {
    if into.listed.is_empty() {
        *into = later;
        return;
    }
    into.listed.extend(later.listed);
    into.unreadable = later.unreadable;
    let places: HashMap<JobId, usize> = into.jobs.iter().enumerate().map(|(at, job)| (job.id.clone(), at)).collect();
    for job in later.jobs {
        match places.get(&job.id).map(|at| &mut into.jobs[*at]) {
            Some(known) if job.updated() < known.updated() => {}
            Some(known) => *known = job,
            None => into.jobs.push(job),
        }
    }
}

fn add(rows: &mut Rows, row: Row) {
    if rows.listed.insert(row.key) {
        rows.jobs.extend(row.job);
    } else if let Some(job) = row.job {
        // The same job under two statuses: it moved on meanwhile, and the later one stands.
        match rows.jobs.iter_mut().find(|known| known.id == job.id) {
            Some(known) if job.updated() < known.updated() => {}
            Some(known) => *known = job,
            None => rows.jobs.push(job),
        }
    }
}

/// Every job in one unfinished status. The end is where a page is not full: what `total` counts is not relied on.
async fn filtered(shelf: &impl Shelf, index: &Index, status: Status) -> Result<Vec<Row>, Brief> {
    let (mut rows, mut seen) = (Vec::new(), HashSet::<Key>::new());
    for number in 0..FILTERED_PAGES_MAX {
        let page = shelf.page(Some(&status), number * LIMIT, LIMIT, index).await.map_err(Brief::Fault)?;
        let count = page.rows.len() + page.unreadable;
        for row in page.rows {
            if let Some(job) = row.job.as_ref().filter(|job: &&Job| job.status != status) {
                return Err(Brief::Untrue(format!("the filter for {status} shows a job that is {}", job.status)));
            }
            if !seen.insert(row.key) {
                return Err(Brief::Unclear { suspicious: false });
            }
            rows.push(row);
        }
        if count > LIMIT {
            return Err(Brief::Untrue("pages are longer than was asked for".into()));
        }
        if count < LIMIT {
            return Ok(rows);
        }
    }
    Err(Brief::Unclear { suspicious: false })
}
