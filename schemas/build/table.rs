//! The table of fields, and what a field must say to get into it. Part of the build script, and of the tests that try to get past it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};

/// Words that no field name may contain: what must never be there (P1, P3, P11, P19).
const FORBIDDEN: &[&str] =
    &["latitude", "longitude", "content", "body_text", "prompt", "mac_address", "imei", "advertising_id", "contact_list"];

/// Renders the field table, or says which field lacks what.
pub(crate) fn fields(pool: &DescriptorPool) -> Result<String, String> {
    let extension = pool.get_extension_by_name("starling.v1.handling").ok_or("options.proto lost its `handling` extension")?;
    let mut table = String::from(
        "/// Every field of every event message, with what it is and how it may be handled.\npub const FIELDS: &[FieldSpec] = &[\n",
    );
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    for message in pool.all_messages().filter(|m| m.parent_file().name() == "event.proto") {
        for field in message.fields() {
            let name = format!("{}.{}", message.name(), field.name());
            if let Some(word) = FORBIDDEN.iter().find(|word| field.name().contains(**word)) {
                return Err(format!(
                    "event.proto: {name} holds `{word}`, which must never be here (P1, P3, P11, P19): take the field out"
                ));
            }
            if let Kind::Message(inner) = field.kind()
                && inner.parent_file().name() != message.parent_file().name()
            {
                return Err(format!(
                    "event.proto: {name} is a message of {}, whose fields say nothing of their handling: write the message down here",
                    inner.parent_file().name()
                ));
            }
            let options = field.options();
            if !options.has_extension(&extension) {
                return Err(format!("event.proto: {name} has no (handling): say its class, purposes and retention"));
            }
            let value = options.get_extension(&extension);
            let Value::Message(handling) = value.as_ref() else {
                return Err(format!("event.proto: {name}: (handling) is no message"));
            };
            let class = enumeration(handling, "class").ok_or_else(|| format!("event.proto: {name} has no class"))?;
            let retention = enumeration(handling, "retention").ok_or_else(|| format!("event.proto: {name} has no retention"))?;
            let purposes = purposes(handling);
            if purposes.is_empty() {
                return Err(format!("event.proto: {name} has no purpose: a field without one has no place here"));
            }
            writeln!(
                table,
                "    FieldSpec {{ message: \"{}\", field: \"{}\", number: {}, wire_type: {}, class: \"{class}\", purposes: &{purposes:?}, retention: \"{retention}\" }},",
                message.name(), field.name(), field.number(), wire_type(&field),
            ).map_err(|e| e.to_string())?;
            let module = modules.entry(snake(message.name())).or_default();
            writeln!(
                module,
                "    /// `{name}`, class `{class}`.\n    pub const {}: u32 = {};",
                field.name().to_uppercase(),
                field.number()
            )
            .map_err(|e| e.to_string())?;
        }
    }
    table.push_str("];\n");
    for (module, constants) in modules {
        write!(table, "\n/// Field numbers of `{module}`.\npub mod {module} {{\n{constants}}}\n").map_err(|e| e.to_string())?;
    }
    Ok(table)
}

fn enumeration(message: &DynamicMessage, name: &str) -> Option<String> {
    let field = message.descriptor().get_field_by_name(name)?;
    let Kind::Enum(kind) = field.kind() else { return None };
    match message.get_field(&field).as_enum_number()? {
        0 => None,
        number => Some(kind.get_value(number)?.name().to_ascii_lowercase()),
    }
}

fn purposes(message: &DynamicMessage) -> Vec<String> {
    let Some(field) = message.descriptor().get_field_by_name("purposes") else { return Vec::new() };
    let Kind::Enum(kind) = field.kind() else { return Vec::new() };
    let value = message.get_field(&field);
    value
        .as_list()
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_enum_number)
        .filter(|number| *number != 0)
        .filter_map(|number| kind.get_value(number).map(|v| v.name().to_ascii_lowercase()))
        .collect()
}

/// The protobuf wire type a well-formed occurrence of this field has: 0 varint, 1 fixed 64, 2 length-delimited, 5 fixed 32.
fn wire_type(field: &FieldDescriptor) -> u8 {
    match field.kind() {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
        Kind::String | Kind::Bytes | Kind::Message(_) => 2,
        _ => 0,
    }
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
