//! The table as a part of a page of documentation (`docs/servers.md`).

use super::{Aspect, Change, Holds, SERVERS, Server, Sight};

/// The table, and for each server what its words stand for.
#[must_use]
pub fn markdown() -> String {
    let names: Vec<_> = Aspect::ALL.iter().map(|aspect| aspect.name()).collect();
    let mut page = format!("| server | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for server in SERVERS {
        page.push_str(&row(server.title, server, &[]));
        for Change { when, label, seen } in server.changes {
            if !seen.is_empty() {
                page.push_str(&row(&format!("… {label}"), server, &[*when]));
            }
        }
    }
    page.push_str("\n**exact**: the server says it, or a call shows it. *inferred*: it follows from what is seen. –: not visible.\n");
    SERVERS.iter().for_each(|server| page.push_str(&section(server)));
    page
}

fn row(title: &str, server: &Server, holds: &[Holds]) -> String {
    let mark = |sight| match sight {
        Sight::Exact => "**exact**",
        Sight::Inferred => "*inferred*",
        Sight::NotVisible => "–",
    };
    let marks: Vec<_> = server.views(holds).iter().map(|view| mark(view.seen.sight)).collect();
    format!("| {title} | {} |\n", marks.join(" | "))
}

fn section(server: &Server) -> String {
    let proven = server.proven.sentence();
    let mut text = format!("\n### {}\n\nAdapter {proven}.\n\n", title_case(server.title));
    for view in server.views(&[]) {
        text.push_str(&format!("* {}: {}: {}\n", view.aspect.name(), view.seen.sight.name(), view.seen.how));
    }
    for Change { label, seen, .. } in server.changes {
        text.push_str(&format!("\n{}:\n\n", title_case(label)));
        for (aspect, seen) in *seen {
            text.push_str(&format!("* {}: {}: {}\n", aspect.name(), seen.sight.name(), seen.how));
        }
        if seen.is_empty() {
            text.push_str("* all as above: it is heard in the engine's process\n");
        }
    }
    text
}

fn title_case(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        // Names that begin small stay so.
        Some(first) if first.is_lowercase() && (text.starts_with("any") || text.starts_with("with")) => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}
