//! The tables there are, and how a statement comes to see them.
//!
//! `stats` and `meta` are resolved when a statement names them, so a release is there for the next statement without opening anything again.
//! Nothing can be registered or removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use futures::{StreamExt, TryStreamExt};
use starling_schemas::metrics::{Catalogue, Metric};
use starling_schemas::time::Clock;
use starling_store::{Files, Metastore, NewestRelease, ReleaseRecord, StoreError};
use tokio::sync::{Mutex, RwLock};

use crate::alerts::{self, INTEGRITY};
use crate::bills::{self, BILLING, Billed, Bills};
use crate::businesses::{self, Accounts, BUSINESS};
use crate::error::{CORRUPTED, INTERNAL, QueryError, UNREADABLE};
use crate::meta;
use crate::metric::Planner;
use crate::private::aggregate_name;
use crate::private::table::PRIVATE;
use crate::private::vault::Vault;
use crate::released::{self, Checked, Day, Released};
use crate::rights::Rights;
use crate::system::{self, INFORMATION_SCHEMA, PG_CATALOG, Picture};
use crate::written;

/// Name of the only catalogue.
pub(crate) const CATALOGUE: &str = "starling";
/// Schema of released statistics, and the one a bare table name is looked up in.
pub(crate) const STATS: &str = "stats";
/// Schema of what there is to know about them.
pub(crate) const META: &str = "meta";

/// Every schema that is not the system's.
pub(crate) const SCHEMAS: [&str; 6] = [STATS, META, PRIVATE, INTEGRITY, BILLING, BUSINESS];

/// Files of one metric read at one time.
const READS: usize = 8;

/// Everything tables are made from.
pub(crate) struct Shelf {
    pub(crate) metastore: Arc<Metastore>,
    pub(crate) catalogue: Arc<Catalogue>,
    files: Arc<Files>,
    checked: RwLock<Checked>,
    releases: Mutex<Held>,
    /// By metric, as they were last asked for.
    tables: RwLock<HashMap<String, Released>>,
    pub(crate) epsilons: meta::Epsilons,
    pub(crate) vault: Option<Arc<Vault>>,
    pub(crate) bills: Option<Arc<dyn Bills>>,
    /// Tells which refill period it is.
    pub(crate) clock: Arc<dyn Clock>,
    /// By metric.
    defined: HashMap<String, Defined>,
}

/// What a metric's text comes to, once it was planned.
#[derive(Debug, Clone)]
pub(crate) struct Defined {
    /// Columns of its released table.
    pub(crate) schema: SchemaRef,
    pub(crate) keys: Vec<String>,
    pub(crate) groups_per_person: u32,
    /// What it is made of, as it is bounded.
    pub(crate) parts: Vec<String>,
}

async fn define(catalogue: &Catalogue) -> Result<HashMap<String, Defined>, QueryError> {
    let planner = Planner::over(catalogue)?;
    let mut defined = HashMap::new();
    for metric in &catalogue.metrics {
        let wrong =
            |error: QueryError| QueryError::new(error.code, format!("metric {}: {}", metric.name, error.reason), error.hint);
        let planned = planner.plan(metric).await.map_err(wrong)?;
        let spec = &planned.leaf.spec;
        let own = Defined {
            schema: written::schema(metric, &planned.keys, &planned.leaf),
            keys: planned.keys.iter().map(|key| key.name.clone()).collect(),
            groups_per_person: spec.groups_per_person,
            parts: spec.aggregates.iter().map(aggregate_name).collect(),
        };
        defined.insert(metric.name.clone(), own);
    }
    Ok(defined)
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

impl Shelf {
    /// # Errors
    /// When a metric cannot be planned.
    pub(crate) async fn new(
        metastore: Arc<Metastore>,
        files: Arc<Files>,
        catalogue: Arc<Catalogue>,
        vault: Option<Arc<Vault>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, QueryError> {
        let defined = define(&catalogue).await?;
        Ok(Self {
            metastore,
            catalogue,
            files,
            checked: RwLock::default(),
            releases: Mutex::default(),
            tables: RwLock::default(),
            epsilons: meta::Epsilons::default(),
            vault,
            bills: None,
            clock,
            defined,
        })
    }

    /// What a metric comes to.
    pub(crate) fn defined(&self, metric: &Metric) -> Result<&Defined, QueryError> {
        self.defined.get(&metric.name).ok_or_else(|| {
            QueryError::new(
                INTERNAL,
                format!("stats.{} was not planned", metric.name),
                "report this: it is a fault of the server",
            )
        })
    }

    /// The metric with this table name.
    pub(crate) fn metric(&self, name: &str) -> Option<&Metric> {
        self.catalogue.metrics.iter().find(|metric| metric.name == name)
    }

    /// All tables: `stats.…`, then `meta.…`, then `private.…` where there is a vault, then `integrity.…`, then `billing.…` where there is any, then
    /// `business.…`.
    pub(crate) fn table_names(&self) -> Vec<(&'static str, String)> {
        let stats = self.catalogue.metrics.iter().map(|metric| (STATS, metric.name.clone()));
        let meta = meta::TABLES.iter().map(|table| (META, table.name.to_owned()));
        let private = self.vault.iter().flat_map(|vault| Vault::datasets(&vault.catalogue)).map(|name| (PRIVATE, name.clone()));
        let integrity = alerts::TABLES.iter().map(|table| (INTEGRITY, table.name.to_owned()));
        let billing = self.bills.iter().flat_map(|_| bills::TABLES.iter().map(|table| (BILLING, table.name.to_owned())));
        let business = businesses::TABLES.iter().map(|table| (BUSINESS, table.name.to_owned()));
        stats.chain(meta).chain(private).chain(integrity).chain(billing).chain(business).collect()
    }

    /// All releases, as of this call or later. Calls that wait for each other share one reading: whoever comes to the lock after a reading
    /// that began after its own arrival takes that one. Only what is new is read.
    ///
    /// # Errors
    /// [`UNREADABLE`].
    pub(crate) async fn releases(&self) -> Result<Arc<Recorded>, QueryError> {
        let arrived = Instant::now();
        let mut held = self.releases.lock().await;
        if held.began.is_none_or(|began| began < arrived) {
            let began = Instant::now();
            if let Some(recorded) = recorded_since(&self.metastore, &held.recorded).await.map_err(|error| unreadable(&error))? {
                held.recorded = Arc::new(recorded);
            }
            held.began = Some(began);
        }
        Ok(Arc::clone(&held.recorded))
    }

    /// The table of a metric with all its released days, in order.
    pub(crate) async fn released(&self, metric: &Metric) -> Result<Released, QueryError> {
        let releases = self.releases().await?;
        if let Some(table) = self.tables.read().await.get(&metric.name)
            && table.releases() == releases.newest.as_ref()
        {
            return Ok(table.clone());
        }
        let table = self.read(metric, &releases).await?;
        self.tables.write().await.insert(metric.name.clone(), table.clone());
        Ok(table)
    }

    async fn read(&self, metric: &Metric, releases: &Recorded) -> Result<Released, QueryError> {
        let schema = Arc::clone(&self.defined(metric)?.schema);
        let records = releases.of(metric);
        let (known, missing) = {
            let checked = self.checked.read().await;
            let known: Vec<Option<Arc<Day>>> = records.iter().map(|record| checked.get(&record.path).cloned()).collect();
            let missing: Vec<Arc<ReleaseRecord>> =
                records.iter().zip(&known).filter(|(_, day)| day.is_none()).map(|(record, _)| Arc::clone(record)).collect();
            (known, missing)
        };
        let read: Vec<Arc<Day>> = futures::stream::iter(missing)
            .map(|record| {
                let schema = Arc::clone(&schema);
                async move {
                    let bytes = self.files.get(&record.path).await.map_err(|error| unreadable(&error))?;
                    let bytes = bytes.ok_or_else(|| gone(&record))?;
                    let day = Arc::new(released::read(&record, &schema, bytes)?);
                    self.checked.write().await.insert(record.path.clone(), Arc::clone(&day));
                    Ok::<_, QueryError>(day)
                }
            })
            .buffered(READS)
            .try_collect()
            .await?;
        let mut read = read.into_iter();
        let days = known.into_iter().filter_map(|day| day.or_else(|| read.next())).collect();
        Ok(Released::new(schema, days, releases.newest.clone()))
    }
}

/// All releases, by metric and window.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// The newest of them: what is made of these releases is true as long as it is.
    pub(crate) newest: Option<NewestRelease>,
    all: Vec<Arc<ReleaseRecord>>,
}

impl Recorded {
    /// All of them, by metric and window.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ReleaseRecord> + Clone {
        self.all.iter().map(Arc::as_ref)
    }

    /// Those of one metric, by window.
    fn of(&self, metric: &Metric) -> &[Arc<ReleaseRecord>] {
        let from = self.all.partition_point(|record| record.metric < metric.name);
        let to = self.all.partition_point(|record| record.metric <= metric.name);
        self.all.get(from..to).unwrap_or_default()
    }
}

/// What was read of releases, and when that began.
#[derive(Default)]
struct Held {
    began: Option<Instant>,
    recorded: Arc<Recorded>,
}

/// All releases as they are now; `None` when they are as they were.
async fn recorded_since(metastore: &Metastore, known: &Recorded) -> Result<Option<Recorded>, StoreError> {
    let newest = metastore.newest_release().await?;
    if newest == known.newest {
        return Ok(None);
    }
    let since = match &known.newest {
        Some(known) => metastore.releases_since(known).await?,
        None => None,
    };
    let (newest, mut all) = match since {
        Some(since) => {
            let newest = since.last().map(|(newest, _)| newest.clone()).or_else(|| known.newest.clone());
            (newest, known.all.iter().cloned().chain(since.into_iter().map(|(_, record)| Arc::new(record))).collect())
        }
        // The first reading, or another database. What is recorded after this newest is read twice, so it is not counted as known.
        None => (newest, metastore.releases().await?.into_iter().map(Arc::new).collect::<Vec<_>>()),
    };
    all.sort_by(|a, b| (&a.metric, a.epoch).cmp(&(&b.metric, b.epoch)));
    all.dedup_by(|a, b| a.metric == b.metric && a.epoch == b.epoch);
    Ok(Some(Recorded { newest, all }))
}

pub(crate) fn unreadable(error: &StoreError) -> QueryError {
    // The store's own texts hold no value from the data, but may hold a path of this machine: they go to the log.
    tracing::error!(%error, "the metastore or the file store could not be read for a statement");
    QueryError::new(
        UNREADABLE,
        "the metastore or the file store could not be read",
        "try again; if it stays, see the server's log",
    )
}

fn gone(record: &ReleaseRecord) -> QueryError {
    QueryError::new(
        CORRUPTED,
        format!("the released file of {} for {} is not there", record.metric, record.epoch),
        "restore it from a backup: it was written once and cannot be drawn again. Other metrics can still be queried",
    )
}

/// The one catalogue, with the schemas that may be read; of a statement over system tables, with those and no others.
#[derive(Debug)]
pub(crate) struct Catalogues(pub(crate) Arc<Shelf>, pub(crate) Rights, pub(crate) Option<Arc<Picture>>);

impl CatalogProviderList for Catalogues {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOGUE.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOGUE).then(|| match &self.2 {
            Some(picture) => Arc::new(SystemSchemas(Arc::clone(picture))) as _,
            None => Arc::new(Schemas(Arc::clone(&self.0), self.1)) as _,
        })
    }
}

#[derive(Debug)]
struct Schemas(Arc<Shelf>, Rights);

impl CatalogProvider for Schemas {
    fn schema_names(&self) -> Vec<String> {
        SCHEMAS.into_iter().filter(|schema| self.1.allow(schema)).map(str::to_owned).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schema = SCHEMAS.into_iter().find(|schema| *schema == name && self.1.allow(schema))?;
        Some(Arc::new(Tables { shelf: Arc::clone(&self.0), schema, rights: self.1 }))
    }
}

#[derive(Debug)]
struct SystemSchemas(Arc<Picture>);

impl CatalogProvider for SystemSchemas {
    fn schema_names(&self) -> Vec<String> {
        [PG_CATALOG, INFORMATION_SCHEMA].map(str::to_owned).into()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schema = [PG_CATALOG, INFORMATION_SCHEMA].into_iter().find(|schema| *schema == name)?;
        Some(Arc::new(SystemTables { picture: Arc::clone(&self.0), schema }))
    }
}

#[derive(Debug)]
struct SystemTables {
    picture: Arc<Picture>,
    schema: &'static str,
}

#[async_trait]
impl SchemaProvider for SystemTables {
    fn table_names(&self) -> Vec<String> {
        system::tables::all().filter(|table| table.schema == self.schema).map(|table| table.name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.picture.table(self.schema, name)?.map(|table| Arc::new(table) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        system::tables::find(Some(self.schema), name).is_some()
    }
}

#[derive(Debug)]
struct Tables {
    shelf: Arc<Shelf>,
    schema: &'static str,
    rights: Rights,
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.shelf.table_names().into_iter().filter(|(schema, _)| *schema == self.schema).map(|(_, name)| name).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let table = if self.schema == PRIVATE {
            let Some(vault) = self.shelf.vault.as_ref().filter(|vault| vault.dataset(name).is_ok()) else { return Ok(None) };
            vault.table(name).await.map(|table| Arc::new(table) as Arc<dyn TableProvider>)
        } else if self.schema == STATS {
            let Some(metric) = self.shelf.metric(name) else { return Ok(None) };
            self.shelf.released(metric).await.map(|table| Arc::new(table) as Arc<dyn TableProvider>)
        } else if self.schema == INTEGRITY {
            let Some(table) = alerts::TABLES.iter().find(|table| table.name == name) else { return Ok(None) };
            alerts::table(table, &self.shelf, self.rights).await.map(|table| Arc::new(table) as Arc<dyn TableProvider>)
        } else if self.schema == BILLING {
            let table = bills::TABLES.iter().find(|table| table.name == name);
            let (Some(table), Some(bills)) = (table, &self.shelf.bills) else { return Ok(None) };
            Ok(Arc::new(Billed::new(table, &self.shelf, bills, self.rights)) as Arc<dyn TableProvider>)
        } else if self.schema == BUSINESS {
            let Some(table) = businesses::TABLES.iter().find(|table| table.name == name) else { return Ok(None) };
            Ok(Arc::new(Accounts::new(table, &self.shelf, self.rights)) as Arc<dyn TableProvider>)
        } else {
            let Some(table) = meta::TABLES.iter().find(|table| table.name == name) else { return Ok(None) };
            meta::table(table, &self.shelf, self.rights).await.map(|table| Arc::new(table) as Arc<dyn TableProvider>)
        };
        table.map(Some).map_err(|error| DataFusionError::External(Box::new(error)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|table| table == name)
    }
}
