//! The copies of volumes on this node: carries out what the engine decides about them.

mod place;

pub(crate) use place::find;
