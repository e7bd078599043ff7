//! What becomes of a value on its way: nothing, or the built-in `PRODUCT_VIEWS`.

use super::product_views::ProductViews;
use super::settings::Transform;
use crate::error::Result;
use crate::json::DeadLetter;

/// A transform made ready for a run.
#[derive(Debug, Clone)]
pub enum Ready {
    None,
    ProductViews(ProductViews),
}

impl Ready {
    /// Checks the options, before the first read.
    ///
    /// # Errors
    /// `Config` naming the option.
    pub fn new(transform: &Transform) -> Result<Self> {
        Ok(match transform {
            Transform::None => Self::None,
            Transform::ProductViews { local_time_zone } => {
                Self::ProductViews(ProductViews::new(local_time_zone.as_deref())?)
            }
        })
    }

    /// Writes the new value to `out` and returns true, or returns false where the bytes stay as they are.
    ///
    /// # Errors
    /// Why the event cannot be mapped.
    pub fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<bool, DeadLetter> {
        match self {
            Self::None => Ok(false),
            Self::ProductViews(views) => {
                out.clear();
                views.transform(value, out)?;
                Ok(true)
            }
        }
    }

    /// Names the transform and its options, for the kept position.
    #[must_use]
    pub fn name(transform: &Transform) -> String {
        match transform {
            Transform::None => "none".into(),
            Transform::ProductViews { local_time_zone: None } => "product_views".into(),
            Transform::ProductViews { local_time_zone: Some(zone) } => format!("product_views({zone})"),
        }
    }
}
