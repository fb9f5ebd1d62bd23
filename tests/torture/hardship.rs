//! Hardships.
