//! The state of `vc top`, and what keys do to it. Nothing here draws, reads or waits.

use std::collections::VecDeque;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use vc_client::text::one_line;
use vc_protocol::control::InstanceRow;

use super::rows::{Data, Row, Tab, key_of};

/// Lines of a log that are kept.
const MAX_LINES: usize = 5000;
/// Rows by which PageUp and PageDown move.
const PAGE: usize = 10;

/// What is to be done after a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    Quit,
    /// Read the log of an instance: its service and replica.
    OpenLogs(String, u32),
    /// Stop reading it.
    CloseLogs,
    /// Run a shell in an instance.
    Shell(String, u32),
}

/// What has happened elsewhere.
#[derive(Debug)]
pub(super) enum News {
    Data(Box<Data>),
    /// No node answers, for this reason; tried again.
    Lost(String),
    LogLine(String),
    /// The log has ended, for this reason if there is one.
    LogEnd(Option<String>),
}

/// The position, order and filter of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Cursor {
    /// The key of the selected row.
    key: Option<String>,
    /// Where it was, for when it is gone.
    at: usize,
    /// The column by which rows are sorted.
    column: usize,
    descending: bool,
    /// What a cell of each row that is shown contains.
    filter: String,
}

/// A log that is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Logs {
    /// The instance.
    pub(super) title: String,
    pub(super) lines: VecDeque<String>,
    /// How many of the last lines are below the screen; 0 follows the log.
    pub(super) below: usize,
    /// Why there are no more lines.
    pub(super) end: Option<String>,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) tab: Tab,
    cursors: [Cursor; 3],
    /// Whether keys go into the filter.
    pub(super) is_typing: bool,
    pub(super) has_help: bool,
    pub(super) logs: Option<Logs>,
    pub(super) data: Data,
    /// Whether anything was answered yet.
    pub(super) has_data: bool,
    /// Why no node answers now.
    pub(super) lost: Option<String>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            tab: Tab::Instances,
            cursors: Default::default(),
            is_typing: false,
            has_help: false,
            logs: None,
            data: Data::default(),
            has_data: false,
            lost: None,
        }
    }

    /// Returns the rows of the table that the filter selects, in their order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let wanted = self.filter().to_lowercase();
        let mut rows = self.tab.rows(&self.data);
        rows.retain(|row| {
            wanted.is_empty()
                || row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&wanted))
        });
        let (column, descending) = self.order();
        rows.sort_by(|a, b| {
            let sort = |row: &Row| row.cells.get(column).map(|cell| cell.sort.clone());
            let order = sort(a).cmp(&sort(b));
            if descending { order.reverse() } else { order }
        });
        rows
    }

    /// Returns the number of the selected row among these.
    pub(super) fn selected(&self, rows: &[Row]) -> Option<usize> {
        let cursor = self.cursor();
        let found = rows.iter().position(|row| Some(&row.key) == cursor.key.as_ref());
        found.or_else(|| Some(cursor.at.min(rows.len().checked_sub(1)?)))
    }

    /// Returns the column by which rows are sorted, and whether the greatest is first.
    pub(super) fn order(&self) -> (usize, bool) {
        (self.cursor().column, self.cursor().descending)
    }

    /// Returns the filter of the table.
    pub(super) fn filter(&self) -> &str {
        &self.cursor().filter
    }

    fn cursor(&self) -> &Cursor {
        &self.cursors[self.tab as usize]
    }

    fn cursor_mut(&mut self) -> &mut Cursor {
        &mut self.cursors[self.tab as usize]
    }

    /// Takes in what has happened elsewhere.
    pub(super) fn update(&mut self, news: News) {
        match news {
            News::Data(data) => {
                (self.data, self.has_data, self.lost) = (*data, true, None);
                // The selected row stays selected where it is now.
                let rows = self.rows();
                if let Some(at) = self.selected(&rows) {
                    self.select(&rows, at);
                }
            }
            News::Lost(reason) => self.lost = Some(one_line(&reason)),
            News::LogLine(line) => {
                let Some(logs) = &mut self.logs else { return };
                logs.lines.push_back(one_line(&line));
                if logs.lines.len() > MAX_LINES {
                    logs.lines.pop_front();
                }
                if logs.below > 0 {
                    logs.below = (logs.below + 1).min(logs.lines.len());
                }
            }
            News::LogEnd(reason) => {
                if let Some(logs) = &mut self.logs {
                    let reason = reason.unwrap_or_else(|| "the instance has ended".to_owned());
                    logs.end = Some(one_line(&reason));
                }
            }
        }
    }

    /// Handles a key.
    pub(super) fn handle(&mut self, key: KeyEvent) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Effect::Quit,
                _ => Effect::Nothing,
            };
        }
        if self.has_help {
            self.has_help = false;
            return Effect::Nothing;
        }
        if self.logs.is_some() {
            return self.handle_in_logs(key.code);
        }
        if self.is_typing {
            let filter = &mut self.cursor_mut().filter;
            match key.code {
                KeyCode::Enter => self.is_typing = false,
                KeyCode::Esc => {
                    filter.clear();
                    self.is_typing = false;
                }
                KeyCode::Backspace => {
                    filter.pop();
                }
                KeyCode::Char(c) => filter.push(c),
                _ => {}
            }
            return Effect::Nothing;
        }
        self.handle_in_table(key.code)
    }

    fn handle_in_table(&mut self, key: KeyCode) -> Effect {
        let rows = self.rows();
        let at = self.selected(&rows).unwrap_or(0);
        let columns = self.tab.columns().len();
        match key {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('?' | 'h') => self.has_help = true,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.cursor_mut().filter.clear(),
            KeyCode::Char('1') => self.tab = Tab::Nodes,
            KeyCode::Char('2') => self.tab = Tab::Services,
            KeyCode::Char('3') => self.tab = Tab::Instances,
            KeyCode::Tab => self.tab = Tab::ALL[(self.tab as usize + 1) % Tab::ALL.len()],
            KeyCode::BackTab => {
                let before = self.tab as usize + Tab::ALL.len() - 1;
                self.tab = Tab::ALL[before % Tab::ALL.len()];
            }
            KeyCode::Down | KeyCode::Char('j') => self.select(&rows, at + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(&rows, at.saturating_sub(1)),
            KeyCode::PageDown => self.select(&rows, at + PAGE),
            KeyCode::PageUp => self.select(&rows, at.saturating_sub(PAGE)),
            KeyCode::Home | KeyCode::Char('g') => self.select(&rows, 0),
            KeyCode::End | KeyCode::Char('G') => self.select(&rows, rows.len()),
            KeyCode::Right => self.sort_by((self.order().0 + 1) % columns),
            KeyCode::Left => self.sort_by((self.order().0 + columns - 1) % columns),
            KeyCode::Char('c') => self.sort_by_title("CPU"),
            KeyCode::Char('m') => self.sort_by_title("MEM"),
            KeyCode::Char('r') => {
                let cursor = self.cursor_mut();
                cursor.descending = !cursor.descending;
            }
            KeyCode::Enter => match (self.tab, rows.get(at)) {
                (Tab::Instances, Some(row)) => return self.open_logs(&row.key),
                (_, Some(row)) => {
                    self.tab = Tab::Instances;
                    // A node's name, or a service.
                    self.cursor_mut().filter = row.key.clone();
                }
                (_, None) => {}
            },
            KeyCode::Char('l') if self.tab == Tab::Instances => {
                return rows.get(at).map_or(Effect::Nothing, |row| self.open_logs(&row.key));
            }
            KeyCode::Char('e' | 's') if self.tab == Tab::Instances => {
                let chosen = rows.get(at).and_then(|row| self.instance(&row.key));
                return chosen.map_or(Effect::Nothing, |row| {
                    Effect::Shell(row.service.to_string(), row.replica)
                });
            }
            _ => {}
        }
        Effect::Nothing
    }

    fn handle_in_logs(&mut self, key: KeyCode) -> Effect {
        let Some(logs) = &mut self.logs else { return Effect::Nothing };
        let most = logs.lines.len();
        match key {
            KeyCode::Char('q') | KeyCode::Esc => {
                self.logs = None;
                return Effect::CloseLogs;
            }
            KeyCode::Up | KeyCode::Char('k') => logs.below = (logs.below + 1).min(most),
            KeyCode::Down | KeyCode::Char('j') => logs.below = logs.below.saturating_sub(1),
            KeyCode::PageUp => logs.below = (logs.below + PAGE).min(most),
            KeyCode::PageDown => logs.below = logs.below.saturating_sub(PAGE),
            KeyCode::Home | KeyCode::Char('g') => logs.below = most,
            KeyCode::End | KeyCode::Char('G') => logs.below = 0,
            _ => {}
        }
        Effect::Nothing
    }

    fn select(&mut self, rows: &[Row], at: usize) {
        let at = at.min(rows.len().saturating_sub(1));
        let key = rows.get(at).map(|row| row.key.clone());
        let cursor = self.cursor_mut();
        (cursor.at, cursor.key) = (at, key);
    }

    fn sort_by(&mut self, column: usize) {
        let cursor = self.cursor_mut();
        cursor.column = column;
    }

    /// Sorts by the first column whose title begins so, the greatest first.
    fn sort_by_title(&mut self, title: &str) {
        let column = self.tab.columns().iter().position(|it| it.starts_with(title));
        if let Some(column) = column {
            let cursor = self.cursor_mut();
            (cursor.column, cursor.descending) = (column, true);
        }
    }

    fn instance(&self, key: &str) -> Option<&InstanceRow> {
        self.data.instances.iter().find(|row| key_of(row) == key)
    }

    fn open_logs(&mut self, key: &str) -> Effect {
        let Some(row) = self.instance(key) else { return Effect::Nothing };
        let (service, replica) = (row.service.to_string(), row.replica);
        self.logs = Some(Logs { title: format!("{service}.{replica}"), ..Logs::default() });
        Effect::OpenLogs(service, replica)
    }
}
