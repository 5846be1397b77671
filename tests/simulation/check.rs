//! The result of checking an invariant.

/// How an invariant is violated.
#[derive(Debug)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The result of checking an invariant.
pub type Check = Result<(), Violation>;
