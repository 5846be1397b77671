//! Draws the state of `vc top`.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row as TableRow, Table, TableState};
use vc_protocol::control::NodeStatus;

use super::model::{Logs, State};
use super::rows::{Row, Tab, Tone};

/// The widest column, but for the last one.
const MAX_WIDTH: usize = 40;

/// What the keys do.
const HELP: [&str; 12] = [
    "1 2 3, Tab      nodes, services, instances",
    "Up Down, j k    select a row; PgUp PgDn Home End",
    "/               filter; Enter keeps it, Esc clears it",
    "Left Right      sort by another column",
    "c m             sort by CPU, by memory",
    "r               reverse the order",
    "Enter           the instances of a node or service; the log of an instance",
    "l               log of an instance; Esc returns",
    "e               shell in an instance",
    "?               this help",
    "q, Ctrl-C       quit",
    "Any key closes this.",
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let parts = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [top, middle, bottom] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(state)), top);
    match &state.logs {
        Some(logs) => draw_logs(frame, logs, middle),
        None => draw_table(frame, state, middle),
    }
    frame.render_widget(Paragraph::new(footer(state)), bottom);
    if state.has_help {
        draw_help(frame, frame.area());
    }
}

fn summary(state: &State) -> Line<'static> {
    let data = &state.data;
    let up = data.nodes.iter().filter(|row| row.state == NodeStatus::Up).count();
    let present = data.nodes.iter().filter(|row| row.state != NodeStatus::Left).count();
    let mut spans = vec![Span::raw("vc top")];
    for tab in Tab::ALL {
        let is_shown = tab == state.tab && state.logs.is_none();
        let style = Style::new().add_modifier(match is_shown {
            true => Modifier::REVERSED,
            false => Modifier::empty(),
        });
        spans.push(Span::raw("  "));
        spans.push(Span::styled(format!("{} {}", tab as usize + 1, tab.title()), style));
    }
    spans.push(Span::raw(format!("   {up}/{present} nodes up")));
    match data.problems.len() {
        0 => {}
        problems => {
            let word = if problems == 1 { "problem" } else { "problems" };
            let text = format!("   {problems} {word}: {}", data.problems.join("; "));
            spans.push(Span::styled(text, Style::new().fg(Color::Yellow)));
        }
    }
    Line::from(spans)
}

fn footer(state: &State) -> Line<'static> {
    if let Some(reason) = &state.lost {
        let text = format!("no node answers, trying again: {reason}");
        return Line::styled(text, Style::new().fg(Color::Red));
    }
    if state.is_typing {
        return Line::raw(format!("/{}_", state.filter()));
    }
    if state.logs.is_some() {
        return Line::raw("Esc back   Up Down scroll   End follow");
    }
    let filter = match state.filter() {
        "" => String::new(),
        filter => format!("filter: {filter}   "),
    };
    Line::raw(format!("{filter}? help   / filter   Enter open   l log   e shell   q quit"))
}

fn draw_table(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let rows = state.rows();
    if rows.is_empty() {
        let text = match (state.has_data, state.filter().is_empty()) {
            (false, _) => "waiting for the first answer",
            (true, true) => "there are none",
            (true, false) => "the filter selects none",
        };
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let (sorted, descending) = state.order();
    let title = |(at, title): (usize, &&str)| match (at == sorted, descending) {
        (true, true) => format!("{title} v"),
        (true, false) => format!("{title} ^"),
        (false, _) => (*title).to_owned(),
    };
    let titles: Vec<String> = state.tab.columns().iter().enumerate().map(title).collect();
    let widths = widths(&titles, &rows);
    let header = TableRow::new(titles).style(Style::new().add_modifier(Modifier::BOLD));
    let cells = rows.iter().map(|row| {
        let texts = row.cells.iter().map(|cell| cell.text.clone());
        TableRow::new(texts).style(style(row.tone))
    });
    let table = Table::new(cells, widths)
        .header(header)
        .column_spacing(2)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut selection = TableState::new().with_selected(state.selected(&rows));
    frame.render_stateful_widget(table, area, &mut selection);
}

/// Returns the widths of the columns: as wide as what is in them, the last one as wide as there is room.
fn widths(titles: &[String], rows: &[Row]) -> Vec<Constraint> {
    let last = titles.len().saturating_sub(1);
    let width = |(at, title): (usize, &String)| {
        let cells = rows.iter().filter_map(|row| row.cells.get(at));
        let widest = cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0);
        let width = widest.min(MAX_WIDTH).max(title.chars().count());
        match at == last {
            true => Constraint::Fill(1),
            false => Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)),
        }
    };
    titles.iter().enumerate().map(width).collect()
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good | Tone::Plain => Style::new(),
        Tone::Changing => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

fn draw_logs(frame: &mut Frame<'_>, logs: &Logs, area: Rect) {
    let block = Block::bordered().title(format!(" log of {} ", logs.title));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let mut lines: Vec<Line<'_>> = logs.lines.iter().map(|line| Line::raw(line.as_str())).collect();
    if let Some(end) = &logs.end {
        lines.push(Line::styled(format!("-- {end}"), Style::new().fg(Color::Yellow)));
    }
    let height = usize::from(inner.height);
    let first = lines.len().saturating_sub(height).saturating_sub(logs.below);
    let shown: Vec<Line<'_>> = lines.into_iter().skip(first).take(height).collect();
    frame.render_widget(Paragraph::new(shown), inner);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(*line)).collect();
    let width = HELP.iter().map(|line| line.len()).max().unwrap_or(0) + 4;
    let size = |wanted: usize, most: u16| u16::try_from(wanted).unwrap_or(u16::MAX).min(most);
    let (width, height) = (size(width, area.width), size(HELP.len() + 2, area.height));
    let at = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, at);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), at);
}
