//! The functions of system statements: each from texts to a text, over nothing but its arguments and the picture.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::{PG_CATALOG, Picture, VERSION_TEXT, oid, type_named, type_shown};
use crate::catalogue::{CATALOGUE, STATS};

type Arguments<'a> = &'a [Option<String>];
type Work = fn(&Picture, Arguments<'_>) -> Option<String>;

/// Name, type of what it gives, and how.
pub(super) static ALL: &[(&str, DataType, Work)] = &[
    // who and where
    ("current_database", DataType::Utf8, |_, _| Some(CATALOGUE.to_owned())),
    ("current_catalog", DataType::Utf8, |_, _| Some(CATALOGUE.to_owned())),
    ("current_schema", DataType::Utf8, |_, _| Some(STATS.to_owned())),
    ("current_schemas", DataType::Utf8, |_, a| {
        Some(if is_true(a.first()) { format!("{{{PG_CATALOG},{STATS}}}") } else { format!("{{{STATS}}}") })
    }),
    ("current_user", DataType::Utf8, |picture, _| Some(picture.user.clone())),
    ("session_user", DataType::Utf8, |picture, _| Some(picture.user.clone())),
    ("current_role", DataType::Utf8, |picture, _| Some(picture.user.clone())),
    ("user", DataType::Utf8, |picture, _| Some(picture.user.clone())),
    ("version", DataType::Utf8, |_, _| Some(VERSION_TEXT.to_owned())),
    ("pg_get_userbyid", DataType::Utf8, |picture, a| Some(picture.role(number(a.first())?))),
    ("pg_is_in_recovery", DataType::Boolean, |_, _| no()),
    ("pg_my_temp_schema", DataType::Int64, |_, _| Some("0".to_owned())),
    ("pg_backend_pid", DataType::Int64, |_, _| Some("0".to_owned())),
    ("pg_encoding_to_char", DataType::Utf8, |_, _| Some("UTF8".to_owned())),
    // what may be seen
    ("pg_table_is_visible", DataType::Boolean, |picture, a| Some(picture.is_visible(object(picture, a.first())?).to_string())),
    ("pg_type_is_visible", DataType::Boolean, |_, _| Some("true".to_owned())),
    ("pg_function_is_visible", DataType::Boolean, |_, _| Some("true".to_owned())),
    ("pg_is_other_temp_schema", DataType::Boolean, |_, _| no()),
    ("pg_relation_is_publishable", DataType::Boolean, |_, _| no()),
    ("pg_has_role", DataType::Boolean, |_, _| no()),
    ("has_database_privilege", DataType::Boolean, |_, a| privilege(a, &["connect"], |name| name == CATALOGUE)),
    ("has_schema_privilege", DataType::Boolean, |picture, a| {
        privilege(a, &["usage"], |name| picture.schemas.iter().any(|(schema, _)| *schema == name || schema_oid(schema) == name))
    }),
    ("has_table_privilege", DataType::Boolean, |picture, a| privilege(a, &["select"], |name| relation(picture, name).is_some())),
    ("has_any_column_privilege", DataType::Boolean, |picture, a| {
        privilege(a, &["select"], |name| relation(picture, name).is_some())
    }),
    // names and numbers
    ("to_regclass", DataType::Int64, |picture, a| relation(picture, a.first()?.as_ref()?).map(|oid| oid.to_string())),
    ("to_regtype", DataType::Int64, |_, a| type_named(a.first()?.as_ref()?).map(|oid| oid.to_string())),
    ("to_regnamespace", DataType::Int64, |picture, a| {
        let name = a.first()?.as_ref()?;
        picture.schemas.iter().find(|(schema, _)| schema == name).map(|(schema, _)| schema_oid(schema))
    }),
    (REGCLASS, DataType::Utf8, |picture, a| Some(picture.shown(object(picture, a.first())?))),
    (REGNAMESPACE, DataType::Utf8, |picture, a| {
        let wanted = a.first()?.as_ref()?;
        let schema = picture.schemas.iter().find(|(schema, _)| schema_oid(schema) == *wanted);
        Some(schema.map_or(wanted.as_str(), |(schema, _)| schema).to_owned())
    }),
    ("format_type", DataType::Utf8, |_, a| Some(type_shown(number(a.first())?).to_owned())),
    ("quote_ident", DataType::Utf8, |_, a| Some(quoted(a.first()?.as_ref()?))),
    ("format", DataType::Utf8, |_, a| {
        let [Some(pattern), values @ ..] = a else { return None };
        let (mut out, mut values) = (String::new(), values.iter());
        let mut signs = pattern.chars();
        while let Some(sign) = signs.next() {
            match (sign, if sign == '%' { signs.next() } else { None }) {
                ('%', Some('I')) => out.push_str(&quoted(values.next()?.as_ref()?)),
                ('%', Some('s')) => out.push_str(values.next()?.as_deref().unwrap_or_default()),
                ('%', Some('%')) => out.push('%'),
                ('%', _) => return None,
                (sign, _) => out.push(sign),
            }
        }
        Some(out)
    }),
    ("string_to_array", DataType::Utf8, |_, a| {
        let (list, separator) = (a.first()?.as_deref()?, a.get(1)?.as_deref()?);
        Some(format!("{{{}}}", list.split(separator).collect::<Vec<_>>().join(",")))
    }),
    ("parse_ident", DataType::Utf8, |_, a| Some(format!("{{{}}}", names(a.first()?.as_ref()?)?.join(",")))),
    // comments
    ("obj_description", DataType::Utf8, |picture, a| {
        let object = object(picture, a.first())?;
        let class = a.get(1).and_then(Option::as_deref);
        if class == Some("pg_namespace") {
            let schema = picture.schemas.iter().find(|(schema, _)| oid("schema", schema) == object)?;
            return Some(schema.1.to_owned());
        }
        let relation = picture.by_oid(object).filter(|_| class.is_none_or(|class| class == "pg_class"))?;
        Some(relation.comment.clone()).filter(|comment| !comment.is_empty())
    }),
    ("col_description", DataType::Utf8, |picture, a| {
        picture.column_comment(object(picture, a.first())?, usize::try_from(number(a.get(1))?).ok()?)
    }),
    ("shobj_description", DataType::Utf8, nothing),
    // lists, which are their texts
    ("array_to_string", DataType::Utf8, |_, a| {
        let separator = a.get(1)?.as_deref()?;
        Some(items(a.first()?.as_deref()?).join(separator))
    }),
    ("array_length", DataType::Int64, length),
    ("array_upper", DataType::Int64, length),
    ("cardinality", DataType::Int64, length),
    ("array_lower", DataType::Int64, |_, a| {
        Some(items(a.first()?.as_deref()?)).filter(|i| !i.is_empty()).map(|_| "1".to_owned())
    }),
    (ITEM, DataType::Utf8, |_, a| {
        let at = usize::try_from(number(a.get(1))?.checked_sub(1)?).ok()?;
        items(a.first()?.as_deref()?).get(at).map(|item| (*item).to_owned())
    }),
    (IS_ANY, DataType::Boolean, |_, a| {
        let (wanted, list) = (a.first()?.as_deref()?, a.get(1)?.as_deref()?);
        Some(items(list).contains(&wanted).to_string())
    }),
    // what nothing here has
    ("pg_get_expr", DataType::Utf8, nothing),
    ("pg_get_viewdef", DataType::Utf8, nothing),
    ("pg_get_indexdef", DataType::Utf8, nothing),
    ("pg_get_constraintdef", DataType::Utf8, nothing),
    ("pg_get_functiondef", DataType::Utf8, nothing),
    ("pg_get_function_result", DataType::Utf8, nothing),
    ("pg_get_function_arguments", DataType::Utf8, nothing),
    ("pg_get_function_identity_arguments", DataType::Utf8, nothing),
    ("pg_get_triggerdef", DataType::Utf8, nothing),
    ("pg_get_ruledef", DataType::Utf8, nothing),
    ("pg_get_partkeydef", DataType::Utf8, nothing),
    ("pg_get_serial_sequence", DataType::Utf8, nothing),
    ("pg_get_statisticsobjdef_columns", DataType::Utf8, nothing),
    ("pg_tablespace_location", DataType::Utf8, nothing),
    ("pg_size_pretty", DataType::Utf8, nothing),
    ("pg_table_size", DataType::Int64, nothing),
    ("pg_total_relation_size", DataType::Int64, nothing),
    ("pg_relation_size", DataType::Int64, nothing),
    ("pg_database_size", DataType::Int64, nothing),
];

/// What casts, subscripts and comparisons with ANY are written as; no statement can name them.
pub(super) const REGCLASS: &str = "starling regclass";
pub(super) const REGNAMESPACE: &str = "starling regnamespace";
pub(super) const ITEM: &str = "starling item";
pub(super) const IS_ANY: &str = "starling any";

fn nothing(_: &Picture, _: Arguments<'_>) -> Option<String> {
    None
}

fn no() -> Option<String> {
    Some("false".to_owned())
}

fn is_true(argument: Option<&Option<String>>) -> bool {
    argument.is_some_and(|value| value.as_deref() == Some("true"))
}

fn number(argument: Option<&Option<String>>) -> Option<i64> {
    argument?.as_ref()?.parse().ok()
}

/// An object by its number, or a relation by its name.
fn object(picture: &Picture, argument: Option<&Option<String>>) -> Option<i64> {
    let named = argument?.as_deref()?;
    named.parse().ok().or_else(|| relation(picture, named))
}

fn schema_oid(name: &str) -> String {
    oid("schema", name).to_string()
}

/// A name as it must be written.
fn quoted(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The parts of a list's text.
fn items(list: &str) -> Vec<&str> {
    let inner = list.strip_prefix('{').and_then(|list| list.strip_suffix('}')).unwrap_or_default();
    if inner.is_empty() { Vec::new() } else { inner.split(',').map(|item| item.trim_matches('"')).collect() }
}

fn length(_: &Picture, a: Arguments<'_>) -> Option<String> {
    Some(items(a.first()?.as_deref()?).len()).filter(|length| *length > 0).map(|length| length.to_string())
}

/// The parts of a name as SQL writes it: in small letters where there are no quotes. `None` for what is no name, or could not stand in a list here.
fn names(text: &str) -> Option<Vec<String>> {
    let (mut found, mut part, mut quoted, mut was_quoted) = (Vec::new(), String::new(), false, false);
    let mut signs = text.trim().chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '"' if quoted && signs.next_if_eq(&'"').is_some() => part.push('"'),
            '"' if quoted || part.is_empty() => (quoted, was_quoted) = (!quoted, true),
            '.' if !quoted => {
                found.push(std::mem::take(&mut part));
                was_quoted = false;
            }
            ',' | '{' | '}' | '\\' => return None,
            sign if quoted => part.push(sign),
            sign if !was_quoted && (sign.is_alphanumeric() || matches!(sign, '_' | '$')) => part.extend(sign.to_lowercase()),
            _ => return None,
        }
    }
    found.push(part);
    (!quoted && found.iter().all(|part| !part.is_empty())).then_some(found)
}

fn relation(picture: &Picture, name: &str) -> Option<i64> {
    match name.parse() {
        Ok(oid) => picture.by_oid(oid).map(|relation| relation.oid),
        Err(_) => picture.named(name).map(|relation| relation.oid),
    }
}

/// Whether all of the privileges named last are among those that are given on the object before them. Whose they are does not matter: of others
/// nothing is told.
fn privilege(a: Arguments<'_>, given: &[&str], there: impl Fn(&str) -> bool) -> Option<String> {
    let [.., object, wanted] = a else { return None };
    let (object, wanted) = (object.as_deref()?, wanted.as_deref()?.to_lowercase());
    Some((there(object) && wanted.split(',').all(|one| given.contains(&one.trim()))).to_string())
}

/// Whether a statement may call it by this name.
pub(super) fn is_one(name: &str) -> bool {
    // These two are asked of a list or a name of the system's, never by themselves.
    !name.contains(' ') && !["format", "string_to_array"].contains(&name) && ALL.iter().any(|(known, ..)| *known == name)
}

/// Whether it may stand in the plan of a system statement.
pub(crate) fn may_stand(name: &str) -> bool {
    ALL.iter().any(|(known, ..)| *known == name)
}

/// All of them over one picture.
pub(crate) fn over(picture: &Arc<Picture>) -> impl Iterator<Item = Arc<ScalarUDF>> {
    ALL.iter().map(|(name, gives, work)| {
        let signature = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Stable);
        Arc::new(ScalarUDF::new_from_impl(Told {
            name,
            gives: gives.clone(),
            work: *work,
            picture: Arc::clone(picture),
            signature,
        }))
    })
}

#[derive(Debug)]
struct Told {
    name: &'static str,
    gives: DataType,
    work: Work,
    picture: Arc<Picture>,
    signature: Signature,
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.picture, &other.picture)
    }
}

impl Eq for Told {}

impl Hash for Told {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Told {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.gives.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns: Vec<ArrayRef> = arguments
            .args
            .into_iter()
            .map(|argument| Ok(cast(&argument.into_array(rows)?, &DataType::Utf8)?))
            .collect::<DataFusionResult<_>>()?;
        let told: StringArray = (0..rows)
            .map(|row| {
                let values: Vec<Option<String>> = columns
                    .iter()
                    .map(|column| (!column.is_null(row)).then(|| column.as_string::<i32>().value(row).to_owned()))
                    .collect();
                (self.work)(&self.picture, &values)
            })
            .collect();
        Ok(ColumnarValue::Array(cast(&told, &self.gives)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::OWNER_NAME;
    use super::*;

    #[test]
    fn lists_are_their_texts() {
        let picture =
            Picture { user: "ada".to_owned(), schemas: vec![], relations: vec![], by_oid: std::collections::HashMap::new() };
        let call = |name: &str, arguments: &[&str]| {
            let work = ALL.iter().find(|(known, ..)| *known == name).expect("there").2;
            work(&picture, &arguments.iter().map(|a| Some((*a).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(call("array_to_string", &["{a,\"b\"}", "|"]).as_deref(), Some("a|b"));
        assert_eq!(call(IS_ANY, &["b", "{a,b}"]).as_deref(), Some("true"));
        assert_eq!(call("array_upper", &["{}", "1"]), None);
        assert_eq!(call(ITEM, &["{a,b}", "2"]).as_deref(), Some("b"));
        assert_eq!(call("pg_get_userbyid", &["10"]).as_deref(), Some(OWNER_NAME));
        assert_eq!(call("has_table_privilege", &["x", "SELECT"]).as_deref(), Some("false"));
        assert_eq!(call("parse_ident", &["Stats.calls_daily"]).as_deref(), Some("{stats,calls_daily}"));
        assert_eq!(call("parse_ident", &["\"A \"\"b\".c"]).as_deref(), Some("{A \"b,c}"));
        for wrong in ["", "a.", ".a", "\"a", "a b", "a,b", "\"a{\"", "a\"b\"", "\"a\"b"] {
            assert_eq!(call("parse_ident", &[wrong]), None, "{wrong}");
        }
        assert_eq!(call("quote_ident", &["a b\"c"]).as_deref(), Some("\"a b\"\"c\""));
    }
}
