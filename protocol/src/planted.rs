//! Known bugs of the pure crates that the simulator (`tests/simulation`) has to find, compiled in only with the feature
//! `planted`, which no build of a product has. Most undo a fix.

macro_rules! planted_bugs {
    ($($variant:ident = $name:literal, $doc:literal;)*) => {
        /// A known bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum PlantedBug {
            $(#[doc = $doc] $variant,)*
        }

        impl PlantedBug {
            /// All known bugs.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the name by which `scripts/simulate --plant` knows it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns what is wrong with it.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $doc,)*
                }
            }
        }
    };
}

planted_bugs! {
    AnswerBeforeWrite = "answer-before-write", "A command is answered before its change is written to disk.";
}

/// There is no planted bug of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no planted bug {0:?}: see tests/simulation/planted.rs")]
pub struct UnknownBug(String);

impl PlantedBug {
    /// Returns the bug of this name. Errors: there is none.
    pub fn parse(name: &str) -> Result<Self, UnknownBug> {
        let found = Self::ALL.iter().copied().find(|bug| bug.name() == name);
        found.ok_or_else(|| UnknownBug(name.to_owned()))
    }
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<PlantedBug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in what this thread runs from now on, or removes it.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<PlantedBug>) {
    PLANTED.set(bug);
}

/// Returns whether this bug is planted in what this thread runs.
#[cfg(feature = "planted")]
pub fn is_planted(bug: PlantedBug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Returns false: this build has no planted bugs.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is_planted(_: PlantedBug) -> bool {
    false
}
