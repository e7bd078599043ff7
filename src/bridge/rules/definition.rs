//! What a declarative transform is told, read and checked whole before anything is read from a topic.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::convert::{TYPES, Type};
use super::filter::Filter;
use super::hash::{FUNCTIONS, Function, Key};
use super::path::Path;
use super::table::{TOP, Table, inside, wrong};
use crate::bridge::product_views;
use crate::error::{Error, Result};

/// A declarative transform: rules for fields in the order of the new event, and filters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// Set for `PRODUCT_VIEWS`, whose fields are ours.
    pub product_views: Option<ProductViews>,
    pub fields: Vec<Field>,
    /// Members of the event that no field takes follow the fields.
    pub keep_unknown: bool,
    pub drop_if: Vec<Filter>,
}

/// What `PRODUCT_VIEWS` alone does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProductViews {
    /// A missing time is derived from `local_time` in this zone.
    pub local_time_zone: Option<String>,
}

/// The rule of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    pub name: String,
    /// The first of these that is there and not null is taken.
    pub from: Vec<Path>,
    pub make: Make,
    /// Missing and null are refused.
    pub required: bool,
    /// JSON that stands in for missing and null.
    pub default: Option<String>,
}

/// What a field's value becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Make {
    Type(Type),
    /// The keyed hash of its spelling.
    Hash(Function, Key),
    /// The network of an IP address.
    MaskIp,
}

impl Definition {
    /// Reads a definition: tables `fields` and `drop_if`, `keep_unknown`, `hash_key`; or the built-in one by its `name`.
    ///
    /// # Errors
    /// `Config` naming the place, with the nearest known name for what is unknown.
    pub fn read(value: Value) -> Result<Self> {
        if value.get("name").is_some_and(|name| !name.is_null()) {
            return product_views::read(value);
        }
        let mut table = Table::open(TOP, value, &["fields", "keep_unknown", "drop_if", "hash_key"])?;
        let key = table.take("hash_key").map(|key| Key::read(&table.place("hash_key"), key)).transpose()?;
        let place = table.place("fields");
        let fields = match table.take("fields") {
            None => Map::new(),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(wrong(&place, "a table of fields")),
        };
        let fields: Result<Vec<Field>> = fields
            .into_iter()
            .map(|(name, rule)| Field::read(&inside(&place, &name), name, rule, key.as_ref()))
            .collect();
        let definition = Self {
            product_views: None,
            fields: fields?,
            keep_unknown: table.flag("keep_unknown")?,
            drop_if: Filter::read_all(&table.place("drop_if"), table.list("drop_if")?)?,
        };
        if definition.fields.is_empty() && !definition.keep_unknown {
            return Err(Error::config(format!("{place}: there are none: every event would be empty"))
                .hint("give fields, or keep_unknown = true"));
        }
        if key.is_some() && !definition.fields.iter().any(|field| matches!(field.make, Make::Hash(..))) {
            return Err(Error::config(format!("{}: no field is hashed with it", table.place("hash_key")))
                .hint("give a field hash = \"hmac-sha256\", or leave the key out"));
        }
        Ok(definition)
    }

    /// Names the definition for the kept position: another one has another name. Keys are in it as their ids.
    #[must_use]
    pub fn name(&self) -> String {
        let Some(views) = &self.product_views else { return format!("fields:{}", digest(self)) };
        let mut options: Vec<String> = views.local_time_zone.iter().cloned().collect();
        if self.keep_unknown {
            options.push("keep_unknown".into());
        }
        if !self.drop_if.is_empty() {
            options.push(format!("drop_if:{}", digest(&self.drop_if)));
        }
        if options.is_empty() { "product_views".into() } else { format!("product_views({})", options.join(",")) }
    }
}

fn digest(told: &impl Serialize) -> String {
    let json = serde_json::to_vec(told).expect("texts and lists are JSON");
    Sha256::digest(json).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl Field {
    fn read(place: &str, name: String, rule: Value, key: Option<&Key>) -> Result<Self> {
        if name.is_empty() || name.contains('\0') {
            return Err(Error::config(format!("{place}: a field's name is neither empty nor holds NUL")));
        }
        let known = ["from", "type", "required", "default", "hash", "mask"];
        let mut table = Table::open(place, rule, &known)?;
        let from = sources(&table.place("from"), &name, table.take("from"))?;
        let kind = table.choice("type", TYPES)?;
        let hash = table.choice("hash", FUNCTIONS)?;
        let mask = table.choice("mask", &[("ip", ())])?;
        let make = match (hash, mask) {
            (Some(_), Some(())) => {
                return Err(Error::config(format!("{place}: both hash and mask")).hint("leave one out"));
            }
            (Some(function), None) => {
                let Some(key) = key else {
                    return Err(Error::config(format!("{}: there is no key for it", table.place("hash")))
                        .hint("give the transform hash_key = {env = \"NAME\"} or {file = \"path\"}"));
                };
                Make::Hash(function, key.clone())
            }
            (None, Some(())) => Make::MaskIp,
            (None, None) => Make::Type(kind.unwrap_or(Type::Json)),
        };
        if !matches!(make, Make::Type(_)) && !matches!(kind, None | Some(Type::String)) {
            return Err(
                Error::config(format!("{}: hash and mask write strings", table.place("type"))).hint("leave type out")
            );
        }
        let default = table.take("default").map(|value| value.to_string());
        Ok(Self { from, make, required: table.flag("required")?, default, name })
    }
}

/// `from`: a path or a list of them; without it the member of the field's own name.
fn sources(place: &str, name: &str, from: Option<Value>) -> Result<Vec<Path>> {
    let paths = match from {
        None => return Ok(vec![Path::member(name)]),
        Some(Value::String(path)) => vec![Path::read(place, &path)?],
        Some(Value::Array(paths)) => paths
            .iter()
            .map(|path| Path::read(place, path.as_str().ok_or_else(|| wrong(place, "a path or a list of paths"))?))
            .collect::<Result<_>>()?,
        Some(_) => return Err(wrong(place, "a path or a list of paths")),
    };
    if paths.is_empty() {
        return Err(wrong(place, "a path or a list of paths"));
    }
    Ok(paths)
}

impl fmt::Display for Field {
    /// The rule in one line, for a reader who asks what it does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from: Vec<String> = self.from.iter().map(ToString::to_string).collect();
        write!(f, "from {}", from.join(" or "))?;
        match &self.make {
            Make::Type(kind) => write!(f, ", {}", kind.name())?,
            Make::Hash(function, _) => write!(f, ", {} hash", function.name())?,
            Make::MaskIp => f.write_str(", ip mask")?,
        }
        if let Some(default) = &self.default {
            write!(f, ", default {default}")?;
        } else if self.required {
            f.write_str(", required")?;
        }
        Ok(())
    }
}
