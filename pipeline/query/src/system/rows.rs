//! Rows of the system tables that have any, from a [`Picture`].

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use starling_schemas::rows::COMMENT;

use super::tables::Spec;
use super::{INFORMATION_SCHEMA, OWNER, PG_CATALOG, Picture, SETTINGS, TYPES, oid, type_of, type_shown};
use crate::catalogue::CATALOGUE;
use crate::meta::Facts;

/// A row: the columns that are not what they are everywhere, and their values as text.
type Row = Vec<(&'static str, String)>;

/// Whether a table never has rows, whoever asks.
pub(super) fn is_empty(spec: &Spec) -> bool {
    const FILLED: [&str; 18] = [
        "pg_namespace",
        "pg_class",
        "pg_attribute",
        "pg_type",
        "pg_description",
        "pg_database",
        "pg_roles",
        "pg_authid",
        "pg_user",
        "pg_settings",
        "pg_tables",
        "pg_am",
        "pg_tablespace",
        "pg_language",
        "schemata",
        "tables",
        "columns",
        "table_privileges",
    ];
    !FILLED.contains(&spec.name)
}

fn rows(spec: &Spec, picture: &Picture) -> Vec<Row> {
    match spec.name {
        "pg_namespace" => picture
            .schemas
            .iter()
            .map(|(name, _)| vec![("oid", schema_oid(name)), ("nspname", (*name).to_owned()), owner("nspowner")])
            .collect(),
        "pg_class" => classes(picture),
        "pg_attribute" => attributes(picture),
        "pg_type" => types(),
        "pg_description" => descriptions(picture),
        "pg_database" => vec![vec![
            ("oid", oid("database", CATALOGUE).to_string()),
            ("datname", CATALOGUE.to_owned()),
            owner("datdba"),
            ("encoding", "6".to_owned()),
            yes("datallowconn"),
            ("datconnlimit", "-1".to_owned()),
            ("datlocprovider", "c".to_owned()),
            ("datcollate", "C.UTF-8".to_owned()),
            ("datctype", "C.UTF-8".to_owned()),
            ("dattablespace", "1663".to_owned()),
        ]],
        "pg_roles" | "pg_authid" => vec![vec![
            ("oid", picture.user_oid().to_string()),
            ("rolname", picture.user.clone()),
            yes("rolinherit"),
            yes("rolcanlogin"),
            ("rolconnlimit", "-1".to_owned()),
        ]],
        "pg_user" => vec![vec![("usename", picture.user.clone()), ("usesysid", picture.user_oid().to_string())]],
        "pg_settings" => SETTINGS
            .iter()
            .map(|(name, value)| {
                let value = (*value).to_owned();
                vec![
                    ("name", (*name).to_owned()),
                    ("setting", value.clone()),
                    ("category", "Preset Options".to_owned()),
                    ("context", "internal".to_owned()),
                    ("vartype", "string".to_owned()),
                    ("source", "default".to_owned()),
                    ("boot_val", value.clone()),
                    ("reset_val", value),
                ]
            })
            .collect(),
        "pg_tables" => picture
            .relations
            .iter()
            .map(|relation| {
                vec![
                    ("schemaname", relation.schema.to_owned()),
                    ("tablename", relation.name.clone()),
                    ("tableowner", super::OWNER_NAME.to_owned()),
                ]
            })
            .collect(),
        "pg_am" => vec![vec![("oid", "2".to_owned()), ("amname", "heap".to_owned()), ("amtype", "t".to_owned())]],
        "pg_tablespace" => vec![vec![("oid", "1663".to_owned()), ("spcname", "pg_default".to_owned()), owner("spcowner")]],
        "pg_language" => {
            vec![vec![("oid", "14".to_owned()), ("lanname", "sql".to_owned()), owner("lanowner"), yes("lanpltrusted")]]
        }
        "schemata" => picture
            .schemas
            .iter()
            .map(|(name, _)| {
                vec![
                    ("catalog_name", CATALOGUE.to_owned()),
                    ("schema_name", (*name).to_owned()),
                    ("schema_owner", super::OWNER_NAME.to_owned()),
                ]
            })
            .collect(),
        "tables" => picture
            .relations
            .iter()
            .map(|relation| {
                let mut row = named(relation.schema, &relation.name);
                let kind = if relation.schema == INFORMATION_SCHEMA { "VIEW" } else { "BASE TABLE" };
                row.extend([
                    ("table_type", kind.to_owned()),
                    ("is_insertable_into", "NO".to_owned()),
                    ("is_typed", "NO".to_owned()),
                ]);
                row
            })
            .collect(),
        "columns" => columns(picture),
        "table_privileges" => picture
            .relations
            .iter()
            .map(|relation| {
                let mut row = named(relation.schema, &relation.name);
                row.extend([
                    ("grantor", super::OWNER_NAME.to_owned()),
                    ("grantee", picture.user.clone()),
                    ("privilege_type", "SELECT".to_owned()),
                    ("is_grantable", "NO".to_owned()),
                ]);
                row
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn schema_oid(name: &str) -> String {
    oid("schema", name).to_string()
}

fn owner(column: &'static str) -> (&'static str, String) {
    (column, OWNER.to_string())
}

fn yes(column: &'static str) -> (&'static str, String) {
    (column, "true".to_owned())
}

fn named(schema: &str, name: &str) -> Row {
    vec![("table_catalog", CATALOGUE.to_owned()), ("table_schema", schema.to_owned()), ("table_name", name.to_owned())]
}

fn classes(picture: &Picture) -> Vec<Row> {
    let row = |relation: &super::Relation| {
        let kind = if relation.schema == INFORMATION_SCHEMA { "v" } else { "r" };
        vec![
            ("oid", relation.oid.to_string()),
            ("relname", relation.name.clone()),
            ("relnamespace", schema_oid(relation.schema)),
            owner("relowner"),
            ("relam", if kind == "r" { "2" } else { "0" }.to_owned()),
            ("reltuples", "-1".to_owned()),
            ("relpersistence", "p".to_owned()),
            ("relkind", kind.to_owned()),
            ("relnatts", relation.columns.fields().len().to_string()),
            yes("relispopulated"),
            ("relreplident", "d".to_owned()),
        ]
    };
    picture.relations.iter().map(row).collect()
}

fn attributes(picture: &Picture) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in &picture.relations {
        for (place, field) in (1..).zip(relation.columns.fields()) {
            let (kind, _, width) = type_of(field.data_type());
            let mut row = vec![
                ("attrelid", relation.oid.to_string()),
                ("attname", field.name().clone()),
                ("atttypid", kind.to_string()),
                ("attlen", width.to_string()),
                ("attnum", i32::to_string(&place)),
                ("attcacheoff", "-1".to_owned()),
                ("atttypmod", "-1".to_owned()),
                ("attalign", "i".to_owned()),
                ("attstorage", if width < 0 { "x" } else { "p" }.to_owned()),
                yes("attislocal"),
                ("attstattarget", "-1".to_owned()),
            ];
            if !field.is_nullable() {
                row.push(yes("attnotnull"));
            }
            rows.push(row);
        }
    }
    rows
}

fn types() -> Vec<Row> {
    let row = |(number, name, _, width, category): &(i64, &str, &str, i64, &str)| {
        vec![
            ("oid", number.to_string()),
            ("typname", (*name).to_owned()),
            ("typnamespace", schema_oid(PG_CATALOG)),
            owner("typowner"),
            ("typlen", width.to_string()),
            ("typtype", "b".to_owned()),
            ("typcategory", (*category).to_owned()),
            yes("typisdefined"),
            ("typdelim", ",".to_owned()),
            ("typinput", format!("{name}in")),
            ("typoutput", format!("{name}out")),
            ("typalign", "i".to_owned()),
            ("typstorage", "p".to_owned()),
            ("typtypmod", "-1".to_owned()),
        ]
    };
    TYPES.iter().map(row).collect()
}

fn descriptions(picture: &Picture) -> Vec<Row> {
    let row = |object: String, class: &str, part: usize, text: &str| {
        vec![
            ("objoid", object),
            ("classoid", oid("table", class).to_string()),
            ("objsubid", part.to_string()),
            ("description", text.to_owned()),
        ]
    };
    let mut rows: Vec<Row> =
        picture.schemas.iter().map(|(name, about)| row(schema_oid(name), "pg_catalog.pg_namespace", 0, about)).collect();
    for relation in &picture.relations {
        if !relation.comment.is_empty() {
            rows.push(row(relation.oid.to_string(), "pg_catalog.pg_class", 0, &relation.comment));
        }
        for (place, field) in (1..).zip(relation.columns.fields()) {
            if let Some(comment) = field.metadata().get(COMMENT).filter(|comment| !comment.is_empty()) {
                rows.push(row(relation.oid.to_string(), "pg_catalog.pg_class", place, comment));
            }
        }
    }
    rows
}

fn columns(picture: &Picture) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in &picture.relations {
        for (place, field) in (1..).zip(relation.columns.fields()) {
            let (kind, name, _) = type_of(field.data_type());
            let mut row = named(relation.schema, &relation.name);
            row.extend([
                ("column_name", field.name().clone()),
                ("ordinal_position", i32::to_string(&place)),
                ("is_nullable", if field.is_nullable() { "YES" } else { "NO" }.to_owned()),
                ("data_type", type_shown(kind).to_owned()),
                ("udt_catalog", CATALOGUE.to_owned()),
                ("udt_schema", PG_CATALOG.to_owned()),
                ("udt_name", name.to_owned()),
                ("dtd_identifier", i32::to_string(&place)),
                ("is_self_referencing", "NO".to_owned()),
                ("is_identity", "NO".to_owned()),
                ("is_generated", "NEVER".to_owned()),
                ("is_updatable", "NO".to_owned()),
            ]);
            rows.push(row);
        }
    }
    rows
}

/// A system table with its rows.
///
/// # Errors
/// A fault of this file: a value that is not of its column's type.
pub(super) fn facts(spec: &Spec, picture: &Picture) -> DataFusionResult<Facts> {
    let (rows, schema) = (rows(spec, picture), spec.columns());
    let mut columns: Vec<ArrayRef> = Vec::new();
    for ((name, letter), field) in spec.columns_told().zip(schema.fields()) {
        let otherwise = match letter {
            'o' | 's' | 'i' | 'l' | 'f' => Some("0"),
            'b' => Some("false"),
            'c' => Some(""),
            _ => None,
        };
        if rows.is_empty() {
            columns.push(new_null_array(field.data_type(), 0));
            continue;
        }
        let value = |row: &Row| {
            row.iter().find(|(column, _)| *column == name).map(|(_, value)| value.clone()).or(otherwise.map(str::to_owned))
        };
        let text: ArrayRef = Arc::new(rows.iter().map(value).collect::<StringArray>());
        columns.push(cast(&text, field.data_type())?);
    }
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(DataFusionError::from)?;
    Ok(Facts::of(schema, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_told_to_be_empty_are_and_the_others_name_columns_that_exist() {
        let picture = Picture {
            user: "ada".to_owned(),
            schemas: vec![(PG_CATALOG, "")],
            relations: super::super::tables::all()
                .map(|table| super::super::Relation {
                    oid: oid("table", table.name),
                    schema: table.schema,
                    name: table.name.to_owned(),
                    comment: "told".to_owned(),
                    columns: table.columns(),
                })
                .collect(),
            by_oid: std::collections::HashMap::new(),
        };
        for spec in super::super::tables::all() {
            let rows = rows(spec, &picture);
            assert_eq!(rows.is_empty(), is_empty(spec), "{}", spec.name);
            for (column, _) in rows.iter().flatten() {
                assert!(spec.columns_told().any(|(name, _)| name == *column), "{}.{column}", spec.name);
            }
            assert!(facts(spec, &picture).is_ok(), "{}", spec.name);
        }
    }
}
