//! PostgreSQL behind a pooler: the stories of every engine, where each transaction may be another session's.

use std::sync::Arc;

use jobwatch::store::{self, Access, Error, Store};

use crate::cluster::Cluster;
use crate::cluster::pool::Pool;

#[path = "stories/mod.rs"]
mod stories;

/// Where a state may be made.
struct Place {
    cluster: Cluster,
    pool: Pool,
    database: String,
}

impl Place {
    /// A page keeps nobody waiting.
    const PAGES_OF_20_000: usize = 1;

    async fn new() -> Self {
        let cluster = Cluster::start().await;
        let (database, pool) = (cluster.database().await, Pool::before(&cluster).await);
        Self { cluster, pool, database }
    }

    fn url(&self) -> String {
        self.cluster.url_at(self.pool.address(), &self.database)
    }

    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        store::open(&store::Place::new(self.url()), Access::Agent).await
    }

    async fn visit(&self) -> Result<Arc<dyn Store>, Error> {
        store::open(&store::Place::new(self.url()), Access::Visitor).await
    }

    async fn is_untouched(&self) -> bool {
        let query = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        let found: i64 = self.cluster.client(&self.database).await.query_one(query, &[]).await.unwrap().get(0);
        found == 0
    }
}
