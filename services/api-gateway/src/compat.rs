//! APIs in other people's shapes, errors included. They only translate.

pub(crate) mod prometheus;
