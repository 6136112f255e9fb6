//! The live table of a terminal: the group's rates on top, the newest requests below, redrawn in place.

use super::account::account;
use super::{View, Whom, bytes, duration, percentiles};
use crate::account::Summary;
use crate::attach::Detail;
use crate::correlate::Request;
use crate::session::Session;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table as Grid};
use ratatui::{DefaultTerminal, Frame, TerminalOptions, Viewport};
use std::io;
use std::time::Duration;

/// Lines that the view takes at the bottom of the terminal.
const HEIGHT: u16 = 22;
/// Lines of it above the requests.
const HEADER: u16 = 5;

/// A view drawn over itself.
pub struct Table {
    terminal: DefaultTerminal,
    last: Option<Sums>,
}

/// Sums at one moment, for rates.
#[derive(Clone, Copy, Default)]
struct Sums {
    elapsed: Duration,
    launches: u64,
    copy_bytes: u64,
    requests: u64,
    tokens: u64,
}

impl Table {
    /// Takes the terminal's last lines; the screen's history stays as it is.
    ///
    /// # Errors
    /// When standard output is no terminal that can be redrawn.
    pub fn new() -> io::Result<Self> {
        let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
        // No raw mode: Ctrl-C must stay a signal, and nothing is read from the keyboard.
        let backend = ratatui::backend::CrosstermBackend::new(io::stdout());
        Ok(Self { terminal: ratatui::Terminal::with_options(backend, options)?, last: None })
    }
}

impl View for Table {
    fn show(&mut self, whom: &Whom, session: &Session, elapsed: Duration) {
        let work = &session.engine.totals().work;
        let now = Sums {
            elapsed,
            launches: work.launches + work.graph_launches,
            copy_bytes: work.copy_bytes(),
            requests: session.requests.total,
            tokens: session.requests.output_tokens,
        };
        let last = self.last.replace(now).unwrap_or(now);
        // A terminal that went away does not end the observation.
        let _ = self.terminal.draw(|frame| draw(frame, whom, session, &now, &last));
    }

    fn finish(&mut self, summary: &Summary, session: &Session) {
        let _ = self.terminal.clear();
        let text = account(summary, session);
        let _ = io::Write::write_all(&mut io::stdout().lock(), text.as_bytes());
    }
}

fn draw(frame: &mut Frame, whom: &Whom, session: &Session, now: &Sums, last: &Sums) {
    let [top, rest] = Layout::vertical([Constraint::Length(HEADER), Constraint::Min(3)]).areas(frame.area());
    frame.render_widget(header(whom, session, now, last), top);
    frame.render_widget(requests(session, rest.height), rest);
}

fn header<'a>(whom: &Whom, session: &Session, now: &Sums, last: &Sums) -> Paragraph<'a> {
    let seconds = now.elapsed.saturating_sub(last.elapsed).as_secs_f64();
    let rate = |now: u64, last: u64| if seconds > 0.0 { (now - last) as f64 / seconds } else { 0.0 };
    let members = &whom.members;
    let gpu = members.iter().filter(|member| member.gpu).count();
    let ttft =
        session.recent.iter().filter_map(|finished| finished.request.time_to_first_token_ns()).collect();
    let ttft = percentiles(ttft).map_or_else(
        || "–".to_owned(),
        |(middle, high)| format!("p50 {}  p99 {}", duration(middle), duration(high)),
    );
    let label = |text: &'static str| Span::styled(text, Style::new().fg(Color::DarkGray));
    let strong = |text: String| Span::styled(text, Style::new().add_modifier(Modifier::BOLD));
    Paragraph::new(vec![
        Line::from(vec![
            label("active "),
            strong(format!("{:<6}", session.engine.active_requests())),
            label("done "),
            strong(format!("{:<8}", session.requests.total)),
            label("requests/s "),
            strong(format!("{:<8.1}", rate(now.requests, last.requests))),
            label("time to first token "),
            strong(ttft),
        ]),
        Line::from(vec![
            label("launches/s "),
            strong(format!("{:<10.0}", rate(now.launches, last.launches))),
            label("copies/s "),
            strong(format!("{:<12}", bytes(rate(now.copy_bytes, last.copy_bytes) as u64))),
            label("steps "),
            strong(format!("{:<8}", session.engine.totals().steps)),
            label("output tokens "),
            strong(format!("{}", now.tokens)),
        ]),
        Line::from(vec![
            label("processes "),
            strong(format!("{} ({gpu} with a GPU library)", members.len())),
            label("  observing for "),
            strong(format!("{:.0} s", now.elapsed.as_secs_f64())),
            label(if whom.detail == Detail::Aggregate { "  counting in the kernel" } else { "" }),
        ]),
    ])
    .block(
        Block::new()
            .borders(Borders::TOP | Borders::BOTTOM)
            .title(format!(" gpuspan · {} · pid {} ", whom.server, whom.pid).bold()),
    )
}

fn requests<'a>(session: &Session, height: u16) -> Grid<'a> {
    let under_way = session.engine.connections().under_way().map(|request| row(request, true));
    let finished = session.recent.iter().rev().map(|finished| row(&finished.request, false));
    let rows: Vec<_> = under_way.chain(finished).take(usize::from(height)).collect();
    let heads = ["route", "model", "state", "duration", "first token", "in", "out", "launches", "evidence"];
    let widths = [26, 18, 10, 10, 11, 7, 7, 9, 8].map(Constraint::Length);
    Grid::new(rows, widths).header(Row::new(heads).style(Style::new().fg(Color::DarkGray)))
}

fn row<'a>(request: &Request, under_way: bool) -> Row<'a> {
    let unknown = || "–".to_owned();
    let number = |value: Option<u64>| value.map_or_else(unknown, |value| value.to_string());
    let state = match (under_way, request.first_token_ns) {
        (true, None) => "waiting",
        (true, Some(_)) => "decoding",
        (false, _) => request.outcome.name(),
    };
    let color = match state {
        "completed" => Color::Green,
        "waiting" => Color::Yellow,
        "decoding" => Color::Cyan,
        _ => Color::Red,
    };
    let took = if under_way { None } else { Some(request.ended_ns.saturating_sub(request.opened_ns)) };
    Row::new(vec![
        Cell::from(request.route.map_or_else(unknown, |route| route.template.to_owned())),
        Cell::from(request.facts.model.clone().unwrap_or_else(unknown)),
        Cell::from(state).style(Style::new().fg(color)),
        Cell::from(took.map_or_else(unknown, duration)),
        Cell::from(request.time_to_first_token_ns().map_or_else(unknown, duration)),
        Cell::from(number(request.usage.input)),
        Cell::from(number(request.usage.output.or((request.deltas > 0).then_some(request.deltas)))),
        Cell::from(number(Some(request.share().launches))),
        Cell::from(request.evidence().name()),
    ])
}
