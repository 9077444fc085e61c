//! What there is, in the protocol's own words: catalogues, schemas, tables, keys, types, and what this server can do.
//!
//! Tables come from where `information_schema` has them, made for whoever asks: what may not be read and what is not there look
//! the same. PostgreSQL's own tables are left out; they are for its clients. There are no keys.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    GetCatalogsBuilder, SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Any, Command, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, Nullable, Searchable, SqlInfo, SqlSupportedCaseSensitivity, SqlSupportedTransaction, XdbcDataType,
};
use prost::Message as _;
use starling_query::{Answer, Listing};

use super::Door;
use super::status::{unmade, unreadable};
use super::way_in::Caller;
use crate::doors::Refusal;

/// What all tables are.
const TABLE_TYPE: &str = "BASE TABLE";
/// Characters of a pattern that names are compared with.
const PATTERN_CHARACTERS: usize = 256;
/// Entries of a list that each row is compared with.
const LIST_ENTRIES: usize = 64;

/// Whether a command asks for one.
pub(super) fn is_one(command: &Command) -> bool {
    bare(command).is_some()
}

/// The same listing with nothing that its rows are compared with: it has the same columns, and is made at the same small cost
/// whatever a client sends. `None` for any other command.
fn bare(command: &Command) -> Option<Command> {
    Some(match command {
        Command::CommandGetCatalogs(_) => Command::CommandGetCatalogs(CommandGetCatalogs::default()),
        Command::CommandGetDbSchemas(_) => Command::CommandGetDbSchemas(CommandGetDbSchemas::default()),
        Command::CommandGetTables(asked) => {
            Command::CommandGetTables(CommandGetTables { include_schema: asked.include_schema, ..CommandGetTables::default() })
        }
        Command::CommandGetTableTypes(_) => Command::CommandGetTableTypes(CommandGetTableTypes::default()),
        Command::CommandGetSqlInfo(_) => Command::CommandGetSqlInfo(CommandGetSqlInfo::default()),
        Command::CommandGetXdbcTypeInfo(_) => Command::CommandGetXdbcTypeInfo(CommandGetXdbcTypeInfo::default()),
        Command::CommandGetPrimaryKeys(_) => Command::CommandGetPrimaryKeys(CommandGetPrimaryKeys::default()),
        Command::CommandGetExportedKeys(_) => Command::CommandGetExportedKeys(CommandGetExportedKeys::default()),
        Command::CommandGetImportedKeys(_) => Command::CommandGetImportedKeys(CommandGetImportedKeys::default()),
        Command::CommandGetCrossReference(_) => Command::CommandGetCrossReference(CommandGetCrossReference::default()),
        _ => return None,
    })
}

/// The columns of a listing.
///
/// # Errors
/// 54000: what its rows would be compared with is too much.
pub(super) fn columns(command: &Command) -> Result<SchemaRef, Refusal> {
    patterns_are_short(command)?;
    lists_are_short(command)?;
    let none = Listing { catalogue: "", schemas: Vec::new(), tables: Vec::new() };
    let bare = bare(command).ok_or_else(unmade)?;
    Ok(rows(bare, &none).map_err(|_| unmade())?.schema())
}

fn lists_are_short(command: &Command) -> Result<(), Refusal> {
    let entries = match command {
        Command::CommandGetSqlInfo(asked) => asked.info.len(),
        Command::CommandGetTables(asked) => asked.table_types.len(),
        _ => 0,
    };
    if entries > LIST_ENTRIES {
        let reason = format!("a list has more than {LIST_ENTRIES} entries");
        return Err(Refusal::new("54000", reason, "shorten it, or leave it out: then all is told"));
    }
    Ok(())
}

fn patterns_are_short(command: &Command) -> Result<(), Refusal> {
    let (schema, table) = match command {
        Command::CommandGetDbSchemas(asked) => (&asked.db_schema_filter_pattern, &None),
        Command::CommandGetTables(asked) => (&asked.db_schema_filter_pattern, &asked.table_name_filter_pattern),
        _ => return Ok(()),
    };
    let is_long = |pattern: &String| pattern.chars().count() > PATTERN_CHARACTERS;
    if [schema, table].into_iter().flatten().any(is_long) {
        let reason = format!("a pattern has more than {PATTERN_CHARACTERS} characters");
        return Err(Refusal::new("54000", reason, "shorten it"));
    }
    Ok(())
}

impl Door {
    /// What there is, as far as the caller may know of it.
    pub(super) async fn list(&self, caller: &Caller, command: &[u8]) -> Result<Answer, Refusal> {
        let command = Any::decode(command).ok().and_then(|any| Command::try_from(any).ok());
        let command = command.ok_or_else(|| unreadable("the command"))?;
        let listing = self.engine.listing_as(&caller.who).await?;
        let batch = rows(command, &listing).map_err(|_| unmade())?;
        Ok(Answer { schema: batch.schema(), batches: vec![batch], notes: Vec::new(), questions: Vec::new() })
    }
}

fn rows(command: Command, listing: &Listing) -> Result<RecordBatch, FlightError> {
    match command {
        Command::CommandGetCatalogs(_) => {
            let mut catalogues = GetCatalogsBuilder::new();
            catalogues.append(listing.catalogue);
            catalogues.build()
        }
        Command::CommandGetDbSchemas(asked) => {
            let mut schemas = asked.into_builder();
            listing.schemas.iter().for_each(|schema| schemas.append(listing.catalogue, schema));
            schemas.build()
        }
        Command::CommandGetTables(asked) => {
            let mut tables = asked.into_builder();
            for table in &listing.tables {
                tables.append(listing.catalogue, table.schema, &table.name, TABLE_TYPE, &table.columns)?;
            }
            tables.build()
        }
        Command::CommandGetTableTypes(asked) => {
            let mut types = asked.into_builder();
            types.append(TABLE_TYPE);
            types.build()
        }
        Command::CommandGetSqlInfo(asked) => asked.into_builder(&what_it_can()?).build(),
        Command::CommandGetXdbcTypeInfo(asked) => asked.into_builder(&types()?).build(),
        Command::CommandGetPrimaryKeys(_) => Ok(RecordBatch::new_empty(Arc::new(Schema::new(vec![
            text("catalog_name", true),
            text("db_schema_name", true),
            text("table_name", false),
            text("column_name", false),
            text("key_name", true),
            Field::new("key_sequence", DataType::Int32, false),
        ])))),
        Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
            Ok(RecordBatch::new_empty(Arc::new(Schema::new(vec![
                text("pk_catalog_name", true),
                text("pk_db_schema_name", true),
                text("pk_table_name", false),
                text("pk_column_name", false),
                text("fk_catalog_name", true),
                text("fk_db_schema_name", true),
                text("fk_table_name", false),
                text("fk_column_name", false),
                Field::new("key_sequence", DataType::Int32, false),
                text("fk_key_name", true),
                text("pk_key_name", true),
                Field::new("update_rule", DataType::UInt8, false),
                Field::new("delete_rule", DataType::UInt8, false),
            ]))))
        }
        _ => Err(ArrowError::NotYetImplemented(String::new()).into()),
    }
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

/// What this server can do, for drivers that look before they ask.
fn what_it_can() -> Result<SqlInfoData, FlightError> {
    let mut infos = SqlInfoDataBuilder::new();
    infos.append(SqlInfo::FlightSqlServerName, "Starling");
    infos.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    infos.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    infos.append(SqlInfo::FlightSqlServerSql, true);
    infos.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    infos.append(SqlInfo::SqlSchemaTerm, "schema");
    infos.append(SqlInfo::SqlCatalogTerm, "catalog");
    infos.append(SqlInfo::FlightSqlServerCancel, true);
    infos.append(SqlInfo::FlightSqlServerReadOnly, true);
    for no in [
        SqlInfo::FlightSqlServerSubstrait,
        SqlInfo::FlightSqlServerBulkIngestion,
        SqlInfo::FlightSqlServerIngestTransactionsSupported,
        SqlInfo::SqlDdlCatalog,
        SqlInfo::SqlDdlSchema,
        SqlInfo::SqlDdlTable,
        SqlInfo::SqlTransactionsSupported,
        SqlInfo::SqlSavepointsSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlBatchUpdatesSupported,
        SqlInfo::SqlNamedParametersSupported,
    ] {
        infos.append(no, false);
    }
    infos.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    infos.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    infos.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    infos.build()
}

/// The types that columns and parameters have.
fn types() -> Result<XdbcTypeInfoData, FlightError> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, kind, bits, quote) in [
        ("boolean", XdbcDataType::XdbcBit, 1, false),
        ("smallint", XdbcDataType::XdbcSmallint, 16, false),
        ("integer", XdbcDataType::XdbcInteger, 32, false),
        ("bigint", XdbcDataType::XdbcBigint, 64, false),
        ("real", XdbcDataType::XdbcReal, 24, false),
        ("double precision", XdbcDataType::XdbcDouble, 53, false),
        ("date", XdbcDataType::XdbcDate, 10, true),
        ("timestamp", XdbcDataType::XdbcTimestamp, 26, true),
        ("text", XdbcDataType::XdbcVarchar, 4_096, true),
    ] {
        let is_number = !quote && kind != XdbcDataType::XdbcBit;
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type: kind,
            column_size: Some(bits),
            literal_prefix: quote.then(|| "'".to_owned()),
            literal_suffix: quote.then(|| "'".to_owned()),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: name == "text",
            searchable: Searchable::Full,
            unsigned_attribute: is_number.then_some(false),
            local_type_name: Some(name.to_owned()),
            sql_data_type: kind,
            num_prec_radix: is_number.then_some(2),
            ..XdbcTypeInfo::default()
        });
    }
    types.build()
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::CommandStatementQuery;

    use super::*;

    #[test]
    fn every_listing_is_told_with_the_columns_it_has() {
        let listing = Listing {
            catalogue: "starling",
            schemas: vec!["meta", "stats"],
            tables: vec![starling_query::Listed {
                schema: "stats",
                name: "calls_daily".to_owned(),
                columns: Arc::new(Schema::new(vec![Field::new("day", DataType::Utf8, true)])),
            }],
        };
        let keys = "calls_daily".to_owned();
        for (command, expected) in [
            (Command::CommandGetCatalogs(CommandGetCatalogs {}), 1),
            (Command::CommandGetDbSchemas(CommandGetDbSchemas::default()), 2),
            (
                Command::CommandGetDbSchemas(CommandGetDbSchemas {
                    db_schema_filter_pattern: Some("st%".to_owned()),
                    ..Default::default()
                }),
                1,
            ),
            (Command::CommandGetTables(CommandGetTables::default()), 1),
            (Command::CommandGetTables(CommandGetTables { include_schema: true, ..Default::default() }), 1),
            (Command::CommandGetTables(CommandGetTables { table_types: vec!["VIEW".to_owned()], ..Default::default() }), 0),
            (Command::CommandGetTableTypes(CommandGetTableTypes {}), 1),
            (Command::CommandGetSqlInfo(CommandGetSqlInfo { info: vec![SqlInfo::FlightSqlServerSubstrait as u32] }), 1),
            (Command::CommandGetXdbcTypeInfo(CommandGetXdbcTypeInfo { data_type: None }), 9),
            (Command::CommandGetPrimaryKeys(CommandGetPrimaryKeys { table: keys.clone(), ..Default::default() }), 0),
            (Command::CommandGetExportedKeys(CommandGetExportedKeys { table: keys.clone(), ..Default::default() }), 0),
            (Command::CommandGetImportedKeys(CommandGetImportedKeys { table: keys, ..Default::default() }), 0),
            (Command::CommandGetCrossReference(CommandGetCrossReference::default()), 0),
        ] {
            assert!(is_one(&command), "{command:?}");
            let told = columns(&command).expect("short");
            let batch = rows(command.clone(), &listing).expect("rows");
            assert_eq!((batch.num_rows(), batch.schema()), (expected, told), "{command:?}");
        }
        let statement = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
        assert!(!is_one(&Command::CommandStatementQuery(statement)));
    }

    #[test]
    fn a_pattern_or_a_list_that_would_be_dear_is_refused() {
        let long = CommandGetTables { table_name_filter_pattern: Some("%a".repeat(200)), ..Default::default() };
        let listed = |types: usize| CommandGetTables { table_types: vec![String::new(); types], ..Default::default() };
        let infos = |infos: usize| CommandGetSqlInfo { info: vec![0; infos] };
        for dear in [
            Command::CommandGetTables(long),
            Command::CommandGetTables(listed(LIST_ENTRIES + 1)),
            Command::CommandGetSqlInfo(infos(LIST_ENTRIES + 1)),
        ] {
            assert_eq!(columns(&dear).err().map(|refusal| refusal.code), Some("54000"), "{dear:?}");
        }
        assert!(columns(&Command::CommandGetTables(listed(LIST_ENTRIES))).is_ok());
        assert!(columns(&Command::CommandGetSqlInfo(infos(LIST_ENTRIES))).is_ok());
    }
}
