//! The names that a cluster has, by what they name.

use std::collections::BTreeMap;

use clap_complete::engine::CompletionCandidate;
use vc_client::{Session, SessionError, expect_reply};
use vc_protocol::control::{NodeRow, NodeStatus, Request};

/// What names name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Nodes,
    FormerNodes,
    Projects,
    /// `shop/web`, or `web` where that is clear; `after` follows each.
    Services {
        after: &'static str,
    },
    /// Services, and their instances once the word has a dot: `shop/web.2`.
    Instances {
        after: &'static str,
    },
    Jobs,
    Volumes {
        after: &'static str,
    },
    Images,
    Receivers,
    Tokens,
    /// Of those that have tokens.
    Users,
}

/// A name and what is said about it, by shells that show that.
type Named = (String, String);

impl Names {
    /// Returns what is named by a value of this name, as usage texts show it: `NODE`.
    pub(super) fn of(value_name: &str) -> Option<Self> {
        Some(match value_name {
            "NODE" => Self::Nodes,
            "FORMER_NODE" => Self::FormerNodes,
            "PROJECT" => Self::Projects,
            "SERVICE" => Self::Services { after: "" },
            "SERVICE=N" => Self::Services { after: "=" },
            "SERVICE[.N]" => Self::Instances { after: "" },
            "[SERVICE:]FROM" | "[SERVICE:]TO" => Self::Instances { after: ":" },
            "JOB" => Self::Jobs,
            "VOLUME" | "VOLUME,…" => Self::Volumes { after: "" },
            "[VOLUME:]FROM" | "[VOLUME:]TO" => Self::Volumes { after: ":" },
            "IMAGE" => Self::Images,
            "RECEIVER" => Self::Receivers,
            "TOKEN" => Self::Tokens,
            "USER" => Self::Users,
            _ => return None,
        })
    }

    /// Asks for the names that begin with a word.
    ///
    /// # Errors
    /// No answer, or the user may not read these.
    pub(super) async fn candidates(
        self,
        session: &mut Session,
        word: &str,
    ) -> Result<Vec<CompletionCandidate>, SessionError> {
        let after = match self {
            Self::Services { after } | Self::Instances { after } | Self::Volumes { after } => after,
            _ => "",
        };
        let mut named = self.ask(session, word).await?;
        named.retain(|(name, _)| name.starts_with(word));
        named.sort();
        named.dedup_by(|a, b| a.0 == b.0);
        let candidate = |(name, about): Named| {
            let about = Some(about).filter(|about| !about.is_empty());
            CompletionCandidate::new(name + after).help(about.map(Into::into))
        };
        Ok(named.into_iter().map(candidate).collect())
    }

    async fn ask(self, session: &mut Session, word: &str) -> Result<Vec<Named>, SessionError> {
        Ok(match self {
            Self::Nodes => {
                let mut rows = nodes(session).await?;
                rows.retain(|row| row.state != NodeStatus::Left);
                let about = |row: &NodeRow| match row.state {
                    NodeStatus::Down => "down".to_owned(),
                    _ => row.role.clone(),
                };
                rows.into_iter().map(|row| (row.name.clone(), about(&row))).collect()
            }
            Self::FormerNodes => {
                let mut rows = nodes(session).await?;
                rows.retain(|row| row.state == NodeStatus::Left);
                rows.into_iter().map(|row| (row.id.to_string(), row.name)).collect()
            }
            Self::Projects => {
                let rows = expect_reply!(session.ask(&Request::Projects).await?, Projects)?;
                rows.into_iter().map(|row| (row.project.to_string(), String::new())).collect()
            }
            Self::Instances { .. } if word.contains('.') => {
                let request = Request::Instances { service: None, usage: false };
                let rows = expect_reply!(session.ask(&request).await?, Instances)?;
                let named = rows.into_iter().map(|row| {
                    let node = row.node_name.unwrap_or_default();
                    (format!("{}.{}", row.service, row.replica), node)
                });
                with_short(named.collect(), word)
            }
            Self::Services { .. } | Self::Instances { .. } => {
                let rows = expect_reply!(session.ask(&Request::Services).await?, Services)?;
                let named = rows.into_iter().map(|row| (row.service.to_string(), row.image));
                with_short(named.collect(), word)
            }
            Self::Jobs => {
                let rows = expect_reply!(session.ask(&Request::Jobs).await?, Jobs)?;
                let named = rows.into_iter().map(|row| (row.service.to_string(), row.schedule));
                with_short(named.collect(), word)
            }
            Self::Volumes { .. } => {
                let rows = expect_reply!(session.ask(&Request::Volumes).await?, Volumes)?;
                let named = rows.into_iter().map(|row| (row.volume.to_string(), row.node_name));
                with_short(named.collect(), word)
            }
            Self::Images => {
                let rows = expect_reply!(session.ask(&Request::Images).await?, Images)?;
                rows.into_iter().map(|row| (row.reference, String::new())).collect()
            }
            Self::Receivers => {
                let rows = expect_reply!(session.ask(&Request::Receivers).await?, Receivers)?;
                rows.into_iter().map(|row| (row.name.to_string(), row.target)).collect()
            }
            Self::Tokens => {
                let mut rows = expect_reply!(session.ask(&Request::Tokens).await?, Tokens)?;
                rows.retain(|row| !row.revoked);
                rows.into_iter().map(|row| (row.id, row.name)).collect()
            }
            Self::Users => {
                let mut rows = expect_reply!(session.ask(&Request::Tokens).await?, Tokens)?;
                rows.retain(|row| row.kind == "user");
                rows.into_iter().map(|row| (row.name, String::new())).collect()
            }
        })
    }
}

async fn nodes(session: &mut Session) -> Result<Vec<NodeRow>, SessionError> {
    expect_reply!(session.ask(&Request::Nodes).await?, Nodes)
}

/// Adds the names without their projects of which there is one only, for a word that may be the beginning of such a name.
fn with_short(mut named: Vec<Named>, word: &str) -> Vec<Named> {
    if word.is_empty() || word.contains('/') {
        return named;
    }
    let mut short: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (name, about) in &named {
        let Some((_, name)) = name.split_once('/') else { continue };
        let entry = short.entry(name.to_owned());
        entry.and_modify(|about| *about = None).or_insert_with(|| Some(about.clone()));
    }
    named.extend(short.into_iter().filter_map(|(name, about)| Some((name, about?))));
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_its_project_is_offered_where_one_project_has_it() {
        let all = ["shop/web", "blog/web", "shop/db"];
        let named = || all.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        let names = |word| {
            let named = with_short(named(), word).into_iter().map(|(name, _)| name);
            named.filter(|name| name.starts_with(word)).collect::<Vec<_>>()
        };
        assert_eq!(names("d"), ["db"]);
        assert_eq!(names("w"), [""; 0]);
        assert_eq!(names("sh"), ["shop/web", "shop/db"]);
        assert_eq!(names(""), all, "each once");
    }
}
