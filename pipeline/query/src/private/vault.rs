//! Where protected rows are: which blocks there are, and how a block is read. Nothing is read here before a question was charged and written into
//! the audit log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int64Array, RecordBatch, StringArray, UInt16Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type, UInt16Type, UInt32Type};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt};
use starling_schemas::codes::{AccountAge, Activity, COUNTRIES, ClientVersion, Country, NO_DETAIL, PlatformCode};
use starling_schemas::ids::{EpochId, Span, WindowId};
use starling_schemas::metrics::{Catalogue, Dataset};
use starling_schemas::questions::Questions;
use starling_schemas::rows::{COMMENT, PERSON_ROWS, PRESENCE_ROWS, PSEUDONYM_BYTES, column, first_difference};
use starling_store::{Files, KeyId, KeyKind, Keyring, KeyringError, Metastore, SecretKey, WindowState, read_table};
use tokio::sync::Mutex;

use super::table::{DAY, HOUR, PERSON, Protected, Role, Rows};
use crate::catalogue::unreadable;
use crate::error::{CORRUPTED, INTERNAL, NOT_PERMITTED, QueryError, UNREADABLE};

/// The block of a dataset that has but one.
pub(crate) const WHOLE: EpochId = EpochId(0);

/// Protected rows and the keys to them.
pub struct Vault {
    pub(crate) metastore: Arc<Metastore>,
    pub(crate) files: Arc<Files>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) catalogue: Arc<Catalogue>,
    /// Tables whose columns were looked up.
    known: Mutex<HashMap<String, Protected>>,
}

/// A block that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) epoch: EpochId,
    /// Of Starling's own rows: the table. Of others: which files there are, and in which version ([`on_disk`]).
    path: String,
    /// Whether everything of it had come when it closed.
    pub(crate) complete: bool,
}

impl Block {
    /// What tells the block's rows from others that stood in its place before; empty for rows that never change.
    pub(crate) fn version(&self) -> &str {
        if self.epoch == WHOLE { &self.path } else { "" }
    }

    /// A closed window whose table stands at `path`.
    pub(crate) fn of(epoch: EpochId, path: String, complete: bool) -> Self {
        Self { epoch, path, complete }
    }
}

impl Vault {
    /// A vault over the person tables in `files`, under the keys in `keyring`.
    #[must_use]
    pub fn new(metastore: Arc<Metastore>, files: Arc<Files>, keyring: Arc<Keyring>, catalogue: Arc<Catalogue>) -> Self {
        Self { metastore, files, keyring, catalogue, known: Mutex::default() }
    }

    pub(crate) fn dataset(&self, name: &str) -> Result<(&Dataset, &Questions), QueryError> {
        let dataset = self.catalogue.datasets.get(name);
        dataset.and_then(|dataset| Some((dataset, dataset.questions.as_ref()?))).ok_or_else(|| {
            QueryError::new(
                NOT_PERMITTED,
                "nothing may be asked of this dataset",
                "SELECT DISTINCT table_name FROM meta.columns WHERE table_schema = 'private' lists what may be asked",
            )
        })
    }

    /// Names of the datasets that may be asked.
    pub(crate) fn datasets(catalogue: &Catalogue) -> impl Iterator<Item = &String> {
        catalogue.datasets.iter().filter(|(_, dataset)| dataset.questions.is_some()).map(|(name, _)| name)
    }

    /// The table of a dataset, to plan over.
    pub(crate) async fn table(&self, name: &str) -> Result<Protected, QueryError> {
        let (dataset, questions) = self.dataset(name)?;
        let mut known = self.known.lock().await;
        if let Some(table) = known.get(name) {
            return Ok(table.clone());
        }
        let table = match &questions.source {
            None => own(name, dataset.window, questions),
            Some(_) => self.foreign(name, questions).await?,
        };
        known.insert(name.to_owned(), table.clone());
        Ok(table)
    }

    /// The blocks of a dataset that can be read, oldest first.
    pub(crate) async fn blocks(&self, name: &str) -> Result<Vec<Block>, QueryError> {
        let (dataset, questions) = self.dataset(name)?;
        if let Some(source) = &questions.source {
            let root = std::path::PathBuf::from(&source.parquet);
            let path = tokio::task::spawn_blocking(move || on_disk(&root)).await.map_err(|_| internal())?.map_err(|error| {
                tracing::error!(kind = ?error.kind(), "a dataset's own files could not be listed");
                QueryError::new(
                    UNREADABLE,
                    "a dataset's own file could not be read",
                    "check the path in the dataset's text; the server's log says more",
                )
            })?;
            return Ok(vec![Block { epoch: WHOLE, path, complete: true }]);
        }
        let windows = self.metastore.windows_of(dataset.window).await.map_err(|error| unreadable(&error))?;
        let mut blocks: Vec<Block> = windows
            .into_iter()
            .filter(|window| window.state.is_final() && window.expired_at_ms.is_none())
            .filter_map(|window| {
                let complete = window.state == WindowState::Closed;
                window.table.map(|table| Block { epoch: window.epoch, path: table.path, complete })
            })
            .collect();
        blocks.sort_by_key(|block| block.epoch);
        Ok(blocks)
    }

    /// A table over the rows of these blocks.
    pub(crate) async fn rows(&self, table: &Protected, blocks: &[Block], state: &SessionState) -> Result<Rows, QueryError> {
        let epochs = Arc::new(blocks.iter().map(|block| block.epoch).collect::<Vec<_>>());
        if let Some(source) = &table.questions.source {
            let listing = listing(&source.parquet, Some(state)).await?;
            let renamed =
                super::renamed::Renamed::new(Arc::new(listing), Arc::clone(&table.schema), &table.questions, &source.person);
            return Ok(Rows { table: Arc::new(renamed), blocks: epochs });
        }
        let (dataset, _) = self.dataset(&table.dataset)?;
        let mut partitions: Vec<Arc<dyn PartitionStream>> = Vec::new();
        for block in blocks {
            let window = WindowId { span: dataset.window, epoch: block.epoch };
            partitions.push(Arc::new(Window {
                files: Arc::clone(&self.files),
                key: Arc::new(self.key(window)?),
                path: block.path.clone(),
                window,
                schema: Arc::clone(&table.schema),
            }));
        }
        let streaming = StreamingTable::try_new(Arc::clone(&table.schema), partitions).map_err(|_| internal())?;
        Ok(Rows { table: Arc::new(streaming), blocks: epochs })
    }

    fn key(&self, window: WindowId) -> Result<SecretKey, QueryError> {
        let gone = || {
            QueryError::new(
                UNREADABLE,
                format!("the rows of {window} have expired"),
                "ask about later days; what was released stays in stats.*",
            )
        };
        match self.keyring.get(KeyId { kind: KeyKind::Data, purpose: window.span.purpose(), epoch: window.epoch }) {
            Ok(Some(key)) => Ok(key),
            Ok(None) | Err(KeyringError::Destroyed(_)) => Err(gone()),
            Err(error) => {
                tracing::error!(%error, "a data key could not be read for a question");
                Err(QueryError::new(UNREADABLE, "a key could not be read", "try again; if it stays, see the server's log"))
            }
        }
    }

    async fn foreign(&self, name: &str, questions: &Questions) -> Result<Protected, QueryError> {
        let Some(source) = &questions.source else { return Err(internal()) };
        let listing = listing(&source.parquet, None).await?;
        let found = datafusion::catalog::TableProvider::schema(&listing);
        let wrong = |column: &str, what: &str| {
            QueryError::new(
                CORRUPTED,
                format!("the rows of private.{name} have {what} {}", crate::error::name(column)),
                "compare the dataset's text with the file's columns",
            )
        };
        let person = found.field_with_name(&source.person).map_err(|_| wrong(&source.person, "no column"))?;
        let mut fields =
            vec![column(PERSON, person.data_type().clone(), false, "whose row it is; for COUNT(DISTINCT person) only")];
        let mut roles = BTreeMap::from([(PERSON.to_owned(), Role::Person)]);
        for (dimension, text) in &questions.dimensions {
            let field = found.field_with_name(dimension).map_err(|_| wrong(dimension, "no column"))?;
            if [PERSON, DAY].contains(&dimension.as_str()) || !super::table::plain(field.data_type()) {
                return Err(wrong(dimension, "a name or type that cannot be grouped by:"));
            }
            fields.push(column(dimension, field.data_type().clone(), true, &text.description));
            roles.insert(dimension.clone(), Role::Dimension(text.values.clone().map(Arc::new)));
        }
        for (measure, bounds) in &questions.measures {
            let theirs = bounds.column.as_ref().unwrap_or(measure);
            let field = found.field_with_name(theirs).map_err(|_| wrong(theirs, "no column"))?;
            match (field.data_type(), bounds.times) {
                (kind, None) if kind.is_integer() && *kind != DataType::UInt64 => {}
                (kind, Some(_)) if kind.is_floating() || kind.is_decimal() => {}
                (kind, None) if kind.is_floating() || kind.is_decimal() => {
                    return Err(wrong(theirs, "fractions (say how fine they are to be counted: times = 100 makes cents) in"));
                }
                (_, Some(_)) => return Err(wrong(theirs, "a type other than fractions (leave `times` away) in")),
                (_, None) => return Err(wrong(theirs, "a type other than whole numbers (up to 64 bits, signed) in")),
            }
            if [PERSON, DAY].contains(&measure.as_str()) {
                return Err(wrong(measure, "a name that is taken (name it otherwise, and its column with `column`):"));
            }
            fields.push(column(measure, DataType::Int64, true, &format!("{}, {}", bounds.description, bounds.unit)));
            roles.insert(measure.clone(), Role::Measure(bounds.clone()));
        }
        Ok(Protected {
            dataset: name.into(),
            schema: Arc::new(Schema::new(fields)),
            roles: Arc::new(roles),
            questions: Arc::new(questions.clone()),
            rows: None,
        })
    }
}

/// One text for the files below `root`, or the file it is: their names, sizes and times of change. Whoever writes other rows changes it.
fn on_disk(root: &std::path::Path) -> std::io::Result<String> {
    let mut folders = vec![root.to_path_buf()];
    let mut files = Vec::new();
    while let Some(at) = folders.pop() {
        let found = std::fs::metadata(&at)?;
        if found.is_dir() {
            for entry in std::fs::read_dir(&at)? {
                folders.push(entry?.path());
            }
        } else {
            files.push((at, found.len(), found.modified()?));
        }
    }
    files.sort_unstable();
    Ok(blake3::hash(format!("{files:?}").as_bytes()).to_hex().to_string())
}

fn internal() -> QueryError {
    QueryError::new(INTERNAL, "the engine failed on this statement", "write it in another way, and report this")
}

/// A file or folder of Parquet on this machine. `state`: where its file system is known, to read; without one only its columns are looked at.
async fn listing(path: &str, state: Option<&SessionState>) -> Result<ListingTable, QueryError> {
    let unreadable = |error: DataFusionError| {
        tracing::error!(%error, "a dataset's own file could not be read");
        QueryError::new(
            UNREADABLE,
            "a dataset's own file could not be read",
            "check the path in the dataset's text; the server's log says more",
        )
    };
    let own;
    let state = match state {
        Some(state) => state,
        None => {
            own = datafusion::execution::SessionStateBuilder::new_with_default_features().build();
            &own
        }
    };
    let url = ListingTableUrl::parse(path).map_err(unreadable)?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new(url).with_listing_options(options).infer_schema(state).await.map_err(unreadable)?;
    ListingTable::try_new(config).map_err(unreadable)
}

/// Starling's own person rows, with names in place of codes, to plan over.
pub(crate) fn own(name: &str, span: Span, questions: &Questions) -> Protected {
    if span != Span::Day {
        return present(name, span, questions);
    }
    // Keys as long as a batch: an expression may be cast to this type, and must fit whatever texts it gives.
    let names = || DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
    let measure = |name: &str| {
        let comment =
            questions.measures.get(name).map_or(String::new(), |bounds| format!("{}, {}", bounds.description, bounds.unit));
        column(name, DataType::Int64, false, &comment)
    };
    let fields = vec![
        column(PERSON, DataType::FixedSizeBinary(PSEUDONYM_BYTES), false, "whose row it is; for COUNT(DISTINCT person) only"),
        column(DAY, DataType::Date32, false, "UTC day, and the block whose budget is charged"),
        column("country", names(), false, "ISO 3166-1 alpha-2 of the calling code; ZZ if unknown"),
        column("platform", names(), false, "client platform"),
        column("activity", names(), false, "what was done"),
        column("version", names(), false, "major and minor version of the client, such as 26.4; unknown if it did not say (P19)"),
        column(
            "detail",
            names(),
            false,
            "which of its kind: a medium, a call's quality, a feature, a crash's site, a category; none if nothing is said",
        ),
        column("account", names(), false, "how old the account is: first_week, older, or unknown"),
        measure("events"),
        measure("seconds"),
    ];
    let list = |values: Vec<String>| Role::Dimension(Some(Arc::new(values)));
    let mut roles = BTreeMap::from([
        (PERSON.to_owned(), Role::Person),
        (DAY.to_owned(), Role::Day),
        ("country".to_owned(), list(COUNTRIES.iter().map(|c| (*c).to_owned()).collect())),
        ("platform".to_owned(), list(PlatformCode::ALL.iter().map(|p| p.name().to_owned()).collect())),
        ("activity".to_owned(), list(Activity::ALL.iter().map(|a| a.name().to_owned()).collect())),
        // Versions come with every release: no list of them is public.
        ("version".to_owned(), Role::Dimension(None)),
        ("detail".to_owned(), list(details().into_iter().map(str::to_owned).collect())),
        ("account".to_owned(), list(AccountAge::ALL.iter().map(|a| a.name().to_owned()).collect())),
    ]);
    for (measure, bounds) in &questions.measures {
        roles.insert(measure.clone(), Role::Measure(bounds.clone()));
    }
    let schema = Arc::new(Schema::new(fields.into_iter().map(commented).collect::<Vec<_>>()));
    Protected { dataset: name.into(), schema, roles: Arc::new(roles), questions: Arc::new(questions.clone()), rows: None }
}

/// Who was there in an hour, a week or a month: no column says more.
fn present(name: &str, span: Span, questions: &Questions) -> Protected {
    let days = match span {
        Span::Hour => "UTC day of the hour".to_owned(),
        span => format!("first day of the {span}, a Monday, and the block whose budget is charged"),
    };
    let mut fields = vec![
        column(PERSON, DataType::FixedSizeBinary(PSEUDONYM_BYTES), false, "whose row it is; for COUNT(DISTINCT person) only"),
        column(DAY, DataType::Date32, false, &days),
    ];
    let mut roles = BTreeMap::from([(PERSON.to_owned(), Role::Person), (DAY.to_owned(), Role::Day)]);
    if span == Span::Hour {
        fields.push(column(
            HOUR,
            DataType::Int64,
            false,
            "UTC hour of the day, 0 to 23: with the day the block whose budget is charged",
        ));
        roles.insert(HOUR.to_owned(), Role::Hour);
    }
    Protected {
        dataset: name.into(),
        schema: Arc::new(Schema::new(fields)),
        roles: Arc::new(roles),
        questions: Arc::new(questions.clone()),
        rows: None,
    }
}

/// The names of all details of all activities, each once.
fn details() -> Vec<&'static str> {
    let mut names = vec![NO_DETAIL];
    for (_, name) in Activity::ALL.iter().flat_map(|activity| activity.details()) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    names
}

fn commented(field: Field) -> Field {
    debug_assert!(field.metadata().contains_key(COMMENT));
    field
}

/// One window's person table.
struct Window {
    files: Arc<Files>,
    key: Arc<SecretKey>,
    path: String,
    window: WindowId,
    schema: SchemaRef,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("window", &self.window).finish_non_exhaustive()
    }
}

impl PartitionStream for Window {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (files, key, path) = (Arc::clone(&self.files), Arc::clone(&self.key), self.path.clone());
        let (window, schema) = (self.window, Arc::clone(&self.schema));
        let names = Arc::new(Names::listed());
        let failed = |error| DataFusionError::External(Box::new(unreadable(&error)));
        let stream = futures::stream::once(async move {
            let stream = read_table(&files, &key, &path).await.map_err(failed)?;
            Ok::<_, DataFusionError>(stream.map_err(failed).map(move |batch| named(&batch?, window, &schema, &names)))
        })
        .try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

/// The names of all codes, as dictionaries' values.
pub(crate) struct Names {
    countries: ArrayRef,
    country_keys: Vec<u16>,
    platforms: ArrayRef,
    platform_keys: [u16; 256],
    activities: ArrayRef,
    activity_keys: [u16; 256],
    details: ArrayRef,
    /// By activity and detail.
    detail_keys: Vec<u16>,
    accounts: ArrayRef,
    account_keys: [u16; 256],
}

impl Names {
    pub(crate) fn listed() -> Self {
        let unknown = COUNTRIES.binary_search(&Country::UNKNOWN.name()).unwrap_or(0);
        let mut country_keys = vec![u16::try_from(unknown).unwrap_or(0); usize::from(u16::MAX) + 1];
        for (at, name) in (0..).zip(COUNTRIES) {
            if let Some(slot) = Country::parse(name).and_then(|country| country_keys.get_mut(usize::from(country.code()))) {
                *slot = at;
            }
        }
        let mut platform_keys = [0; 256];
        for (at, platform) in (0..).zip(PlatformCode::ALL) {
            platform_keys[usize::from(platform.code())] = at;
        }
        let mut activity_keys = [0; 256];
        for (at, activity) in (0..).zip(Activity::ALL) {
            activity_keys[usize::from(activity.code())] = at;
        }
        let details = details();
        let mut detail_keys = vec![0; 1 << 16];
        for activity in Activity::ALL {
            for (code, name) in activity.details() {
                let slot = detail_keys.get_mut(usize::from(activity.code()) << 8 | usize::from(*code));
                if let (Some(slot), Some(at)) = (slot, details.iter().position(|known| known == name)) {
                    *slot = u16::try_from(at).unwrap_or(0);
                }
            }
        }
        let mut account_keys = [0; 256];
        for (at, account) in (0..).zip(AccountAge::ALL) {
            account_keys[usize::from(account.code())] = at;
        }
        Self {
            details: Arc::new(StringArray::from_iter_values(details)),
            detail_keys,
            accounts: Arc::new(StringArray::from_iter_values(AccountAge::ALL.iter().map(|a| a.name()))),
            account_keys,
            countries: Arc::new(StringArray::from_iter_values(COUNTRIES)),
            country_keys,
            platforms: Arc::new(StringArray::from_iter_values(PlatformCode::ALL.iter().map(|p| p.name()))),
            platform_keys,
            activities: Arc::new(StringArray::from_iter_values(Activity::ALL.iter().map(|a| a.name()))),
            activity_keys,
        }
    }
}

/// A batch of person rows with names in place of codes.
pub(crate) fn named(
    batch: &RecordBatch,
    window: WindowId,
    schema: &SchemaRef,
    names: &Names,
) -> Result<RecordBatch, DataFusionError> {
    let wrong = || {
        DataFusionError::External(Box::new(QueryError::new(
            CORRUPTED,
            format!("the person table of {window} has other columns than person rows have"),
            "was it written by another version? Ask about other days",
        )))
    };
    let column = |name: &str| batch.column_by_name(name).filter(|c| c.null_count() == 0).ok_or_else(wrong);
    let expected: &SchemaRef = if window.span == Span::Day { &PERSON_ROWS } else { &PRESENCE_ROWS };
    if first_difference(expected, batch.schema_ref()).is_some() {
        return Err(wrong());
    }
    let person = Arc::clone(column(PERSON)?);
    let days = Arc::new(arrow::array::Date32Array::from_value(window.epoch.day().0, batch.num_rows()));
    if window.span != Span::Day {
        let hour = window.epoch.hour().map(|hour| Arc::new(Int64Array::from_value(i64::from(hour), batch.num_rows())));
        let columns: Vec<ArrayRef> = [person, days].into_iter().chain(hour.map(|hour| hour as ArrayRef)).collect();
        return RecordBatch::try_new(Arc::clone(schema), columns).map_err(|_| wrong());
    }
    let countries = column("country")?.as_primitive_opt::<UInt16Type>().ok_or_else(wrong)?;
    let codes = |name: &str, keys: &[u16; 256]| -> Result<UInt16Array, DataFusionError> {
        let codes = column(name)?.as_primitive_opt::<UInt8Type>().ok_or_else(wrong)?;
        Ok(UInt16Array::from_iter_values(codes.values().iter().map(|code| keys[usize::from(*code)])))
    };
    let numbers = |name: &str| -> Result<ArrayRef, DataFusionError> {
        let numbers = column(name)?.as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?;
        Ok(Arc::new(Int64Array::from_iter_values(numbers.values().iter().map(|n| i64::from(*n)))))
    };
    let country = UInt16Array::from_iter_values(
        countries.values().iter().map(|code| names.country_keys.get(usize::from(*code)).copied().unwrap_or(0)),
    );
    let (activities, details) = (column("activity")?, column("detail")?);
    let pairs = activities.as_primitive_opt::<UInt8Type>().zip(details.as_primitive_opt::<UInt8Type>()).ok_or_else(wrong)?;
    let detail = pairs.0.values().iter().zip(pairs.1.values()).map(|(activity, detail)| {
        names.detail_keys.get(usize::from(*activity) << 8 | usize::from(*detail)).copied().unwrap_or(0)
    });
    let detail = UInt16Array::from_iter_values(detail);
    let columns: Vec<ArrayRef> = vec![
        person,
        days,
        Arc::new(DictionaryArray::try_new(country, Arc::clone(&names.countries))?),
        Arc::new(DictionaryArray::try_new(codes("platform", &names.platform_keys)?, Arc::clone(&names.platforms))?),
        Arc::new(DictionaryArray::try_new(codes("activity", &names.activity_keys)?, Arc::clone(&names.activities))?),
        versions(column("version")?.as_primitive_opt::<UInt16Type>().ok_or_else(wrong)?)?,
        Arc::new(DictionaryArray::try_new(detail, Arc::clone(&names.details))?),
        Arc::new(DictionaryArray::try_new(codes("account", &names.account_keys)?, Arc::clone(&names.accounts))?),
        numbers("events")?,
        numbers("seconds")?,
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|_| wrong())
}

/// Versions by name. There are far fewer in a batch than there may be, so each batch has a list of its own.
fn versions(codes: &UInt16Array) -> Result<ArrayRef, DataFusionError> {
    let mut places: HashMap<u16, u16> = HashMap::new();
    let mut names: Vec<String> = Vec::new();
    let keys: UInt16Array = codes
        .values()
        .iter()
        .map(|code| {
            Some(*places.entry(*code).or_insert_with(|| {
                names.push(ClientVersion::from_code(*code).to_string());
                u16::try_from(names.len() - 1).unwrap_or(u16::MAX)
            }))
        })
        .collect();
    Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(StringArray::from_iter_values(names)))?))
}
