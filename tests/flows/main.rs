//! Tests: flows.
