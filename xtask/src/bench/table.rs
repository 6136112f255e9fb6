//! Figures → lines of a Markdown table, printed as they come. Also the medians they are made of.

/// What was measured, beside what was wanted.
pub struct Table {
    missed: Vec<String>,
    with_goal: usize,
}

/// What a figure should be.
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Table {
    /// Prints the head.
    pub fn start() -> Self {
        println!("| what | figure | goal | |\n|---|---|---|---|");
        Self { missed: Vec::new(), with_goal: 0 }
    }

    /// A figure by itself.
    pub fn fact(&mut self, what: &str, figure: &str) {
        println!("| {what} | {figure} | | |");
    }

    /// A figure with a goal, both in `unit`.
    pub fn judge(&mut self, what: &str, figure: f64, text: &str, goal: &Goal, unit: &str) {
        let (met, wanted) = match goal {
            Goal::AtMost(most) => (figure <= *most, format!("≤ {most} {unit}")),
            Goal::AtLeast(least) => (figure >= *least, format!("≥ {least} {unit}")),
        };
        let verdict = if met { "met" } else { "**missed**" };
        println!("| {what} | {text} | {} | {verdict} |", wanted.trim_end());
        self.with_goal += 1;
        if !met {
            self.missed.push(what.to_owned());
        }
    }

    /// The last line.
    pub fn verdict(&self) -> String {
        let met = self.with_goal - self.missed.len();
        match self.missed.as_slice() {
            [] => format!("{met} of {} goals met", self.with_goal),
            missed => format!("{met} of {} goals met; missed: {}", self.with_goal, missed.join("; ")),
        }
    }
}

/// The middle value; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this share of them lies; 0 of none.
pub fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let index = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(index).copied().unwrap_or(0.0)
}

/// Round by round, what `with` has above `without`: median, and the quartiles around it.
pub struct Added {
    /// Median of the differences.
    pub difference: f64,
    /// Median of the ratios.
    pub ratio: f64,
    quartiles: (f64, f64),
}

impl Added {
    /// Of two series measured in turn.
    pub fn of(without: &[f64], with: &[f64]) -> Self {
        let differences = || without.iter().zip(with).map(|(without, with)| with - without);
        let ratios = without.iter().zip(with).map(|(without, with)| with / without);
        let quartiles = (quantile(differences(), 0.25), quantile(differences(), 0.75));
        Self { difference: median(differences()), ratio: median(ratios), quartiles }
    }
}

impl std::fmt::Display for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = self.quartiles;
        write!(f, "{:+.0} ns ({low:.0} to {high:.0}), ×{:.2}", self.difference, self.ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_paired_rounds() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([]), 0.0);
        let added = Added::of(&[10.0, 20.0, 40.0], &[15.0, 30.0, 45.0]);
        assert_eq!((added.difference, added.ratio), (5.0, 1.5));
        assert_eq!(added.to_string(), "+5 ns (5 to 10), ×1.50");
    }

    #[test]
    fn a_missed_goal_is_said() {
        let mut table = Table::start();
        table.judge("a", 3.0, "3 ms", &Goal::AtMost(3.0), "ms");
        table.judge("b", 0.9, "0.9", &Goal::AtLeast(0.95), "");
        assert_eq!(table.verdict(), "1 of 2 goals met; missed: b");
    }
}
