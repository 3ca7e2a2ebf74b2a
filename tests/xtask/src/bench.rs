//! `bench NAME`: figures beside their budgets; a missed budget is a failure.

use crate::Result;

pub(crate) fn run(name: &str) -> Result {
    Err(format!("no benchmark '{name}'"))
}
