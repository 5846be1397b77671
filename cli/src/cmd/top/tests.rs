//! What keys do, and what is drawn.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw::draw;
use super::model::{Effect, News, State};
use super::rows::{Data, Tab};
use crate::render::golden::{NOW, instances, nodes};

fn data() -> Data {
    Data {
        nodes: nodes(),
        services: Vec::new(),
        instances: instances(),
        problems: vec!["node delta is down".to_owned()],
        now: NOW,
    }
}

fn state() -> State {
    let mut state = State::new();
    state.update(News::Data(Box::new(data())));
    state
}

fn press(state: &mut State, code: KeyCode) -> Effect {
    state.handle(KeyEvent::new(code, KeyModifiers::NONE))
}

fn write(state: &mut State, text: &str) {
    for c in text.chars() {
        assert_eq!(press(state, KeyCode::Char(c)), Effect::Nothing, "{c}");
    }
}

/// Returns the first cell of each row, `>` before the selected one.
fn shown(state: &State) -> Vec<String> {
    let rows = state.rows();
    let selected = state.selected(&rows);
    let mark = |at: usize| if selected == Some(at) { ">" } else { "" };
    rows.iter().enumerate().map(|(at, row)| format!("{}{}", mark(at), row.cells[0].text)).collect()
}

/// Draws on a terminal of this size; returns its lines.
fn drawn(state: &State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, state)).expect("drawn");
    let cells = terminal.backend().buffer().content();
    let lines = cells.chunks(usize::from(width));
    let text = |line: &[ratatui::buffer::Cell]| {
        line.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
    };
    lines.map(text).collect()
}

#[test]
fn the_tables_are_drawn_as_wide_as_what_is_in_them() {
    let mut state = state();
    let lines = drawn(&state, 110, 10);
    assert!(
        lines[0].starts_with(
            "vc top  1 nodes  2 services  3 instances   4/5 nodes up   1 problem: node delta"
        ),
        "{lines:#?}"
    );
    assert_eq!(
        lines[1],
        "INSTANCE ^  NODE   STATE           CPU %   MEMORY   RESTARTS  SINCE   REASON"
    );
    assert_eq!(
        lines[2], "shop/web.1  alpha  running         125.5%  70 MiB   0         3m ago",
        "{lines:#?}"
    );
    assert_eq!(lines[9], "? help   / filter   Enter open   l log   e shell   q quit");
    press(&mut state, KeyCode::Char('1'));
    let lines = drawn(&state, 110, 10);
    assert!(lines[2].starts_with("alpha    up        3"), "{lines:#?}");
    // Without room for anything nothing breaks.
    drawn(&state, 5, 2);
}

#[test]
fn rows_are_sorted_filtered_and_selected_by_keys() {
    let mut state = state();
    assert_eq!(shown(&state)[0], ">shop/web.1");
    press(&mut state, KeyCode::Char('m'));
    assert_eq!(shown(&state)[0], "shop/web.2", "most memory first: {:?}", shown(&state));
    press(&mut state, KeyCode::Home);
    press(&mut state, KeyCode::Char('r'));
    let last = shown(&state).pop();
    assert_eq!(last.as_deref(), Some(">shop/web.2"), "the selection goes with its row");
    press(&mut state, KeyCode::Char('/'));
    write(&mut state, "FAILED");
    assert_eq!(shown(&state), [">shop/web.3"]);
    // A letter is no command meanwhile.
    write(&mut state, "q");
    assert_eq!(shown(&state), Vec::<String>::new());
    press(&mut state, KeyCode::Backspace);
    press(&mut state, KeyCode::Enter);
    assert_eq!(shown(&state), [">shop/web.3"]);
    press(&mut state, KeyCode::Esc);
    assert_eq!(shown(&state).len(), 7);
    for (key, tab) in [('1', Tab::Nodes), ('2', Tab::Services), ('3', Tab::Instances)] {
        press(&mut state, KeyCode::Char(key));
        assert_eq!(state.tab, tab);
    }
    press(&mut state, KeyCode::Tab);
    assert_eq!(state.tab, Tab::Nodes);
    press(&mut state, KeyCode::BackTab);
    assert_eq!(state.tab, Tab::Instances);
}

#[test]
fn the_selected_row_stays_selected_when_others_come_and_go() {
    let mut state = state();
    press(&mut state, KeyCode::End);
    assert_eq!(shown(&state).last().map(String::as_str), Some(">shop/web.6"));
    let mut fewer = data();
    fewer.instances.retain(|row| row.replica == 1 || row.replica == 6);
    state.update(News::Data(Box::new(fewer)));
    assert_eq!(shown(&state).last().map(String::as_str), Some(">shop/web.6"));
    let mut gone = data();
    gone.instances.retain(|row| row.replica < 4);
    state.update(News::Data(Box::new(gone)));
    assert_eq!(shown(&state).iter().filter(|it| it.starts_with('>')).count(), 1);
    state.update(News::Data(Box::default()));
    assert_eq!(shown(&state), Vec::<String>::new());
    assert_eq!(press(&mut state, KeyCode::Enter), Effect::Nothing);
    assert_eq!(press(&mut state, KeyCode::Char('e')), Effect::Nothing);
}

#[test]
fn a_node_leads_to_its_instances_and_an_instance_to_its_log_and_a_shell() {
    let mut state = state();
    press(&mut state, KeyCode::Char('1'));
    press(&mut state, KeyCode::Enter);
    assert_eq!((state.tab, state.filter()), (Tab::Instances, "alpha"));
    press(&mut state, KeyCode::Char('1'));
    assert_eq!(state.filter(), "", "each table has its own");
    press(&mut state, KeyCode::Char('3'));
    let chosen = ("shop/web".to_owned(), 1);
    let shell = press(&mut state, KeyCode::Char('e'));
    assert_eq!(shell, Effect::Shell(chosen.0.clone(), chosen.1));
    assert_eq!(press(&mut state, KeyCode::Char('l')), Effect::OpenLogs(chosen.0, chosen.1));

    for n in 0..30 {
        state.update(News::LogLine(format!("line {n}\u{1b}[2J")));
    }
    let lines = drawn(&state, 40, 10);
    assert!(lines[1].contains("log of shop/web.1"), "{lines:#?}");
    assert!(lines[7].contains("line 29"), "it follows: {lines:#?}");
    assert!(!lines.concat().contains('\u{1b}'), "{lines:#?}");
    press(&mut state, KeyCode::PageUp);
    state.update(News::LogLine("line 30".to_owned()));
    let lines = drawn(&state, 40, 10);
    assert!(lines[7].contains("line 19"), "it stays where it is read: {lines:#?}");
    press(&mut state, KeyCode::End);
    state.update(News::LogEnd(None));
    let lines = drawn(&state, 40, 10);
    assert!(lines[7].contains("-- the instance has ended"), "{lines:#?}");
    assert_eq!(press(&mut state, KeyCode::Esc), Effect::CloseLogs);
    state.update(News::LogLine("late".to_owned()));
    assert_eq!(state.logs, None);
}

#[test]
fn help_covers_the_table_and_any_key_closes_it() {
    let mut state = state();
    press(&mut state, KeyCode::Char('?'));
    assert!(drawn(&state, 100, 20).concat().contains("shell in an instance"));
    assert_eq!(press(&mut state, KeyCode::Char('q')), Effect::Nothing);
    assert!(!drawn(&state, 100, 20).concat().contains("shell in an instance"));
    assert_eq!(press(&mut state, KeyCode::Char('q')), Effect::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.handle(control_c), Effect::Quit);
}

#[test]
fn a_lost_connection_is_said_until_a_node_answers() {
    let mut state = state();
    state.update(News::Lost("closed by the node".to_owned()));
    let lines = drawn(&state, 80, 10);
    assert!(lines[9].starts_with("no node answers, trying again: closed"), "{lines:#?}");
    assert_eq!(shown(&state).len(), 7, "what was known is still shown");
    state.update(News::Data(Box::new(data())));
    assert!(!drawn(&state, 80, 10)[9].contains("no node answers"));
}
