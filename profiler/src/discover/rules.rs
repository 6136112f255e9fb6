//! The operator's rules: which processes are to be observed, which not, and what they are called.
//!
//! In: rules as the configuration has them, facts of a process and of the place it runs in. Out: the first rule that
//! matches, or that it has to be waited for. Absent: finding those facts.

use crate::place::Place;
use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which processes a rule is about. All that is given has to hold; nothing given holds for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// The whole command line, its arguments joined by spaces, as a glob: `*vllm serve*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Path of the executable, as a glob: `/opt/*/bin/llama-server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// The container's image, as a glob: `*/vllm-openai:*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The pod's namespace, as a glob: `prod-*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels of the pod, values as globs: `app: chat-*`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The systemd unit, as a glob: `llama@*.service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What runs the container: containerd, cri-o, docker or podman.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<String>,
    /// User of the process: a number, or a name that this machine's `/etc/passwd` has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What a rule does with the processes it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Observe them, also where they only use a GPU and answer nobody. A rule with `command` or `executable` takes
    /// processes that have no GPU, too.
    #[default]
    Include,
    /// Leave them alone.
    Exclude,
}

/// One rule. The first that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which processes it is about.
    #[serde(rename = "match", default)]
    pub about: Match,
    /// What happens to them.
    #[serde(default)]
    pub action: Action,
    /// Their `service.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Further resource attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuleError {
    /// No glob.
    #[error("rule {rule}: `{condition}` is no glob ({why}): {text}")]
    Glob {
        /// Which rule, from 1.
        rule: usize,
        /// What of it.
        condition: &'static str,
        /// What it says.
        text: String,
        /// Where it goes wrong.
        why: String,
    },
    /// A rule that says both.
    #[error("rule {rule} excludes, so its `{what}` would never be used: take it out, or include instead")]
    Useless {
        /// Which rule, from 1.
        rule: usize,
        /// What of it.
        what: &'static str,
    },
}

/// What is known of the place that a process runs in. What is not known, or not known yet, is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceFacts {
    /// It runs in a pod, whose name may be learnt later than the process is seen.
    pub in_pod: bool,
    /// The container's image.
    pub image: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// The pod's labels.
    pub labels: Vec<(String, String)>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// What runs the container.
    pub container_runtime: Option<String>,
}

impl From<&Place> for PlaceFacts {
    /// What is known without Kubernetes.
    fn from(place: &Place) -> Self {
        let container = place.container();
        Self {
            in_pod: place.pod.is_some(),
            image: container.and_then(|container| container.image.clone()),
            unit: place.unit.as_ref().map(|unit| unit.name.clone()),
            container_runtime: container.and_then(|container| container.runtime).map(str::to_owned),
            ..Self::default()
        }
    }
}

/// What a process is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Path of its executable.
    pub executable: &'a str,
    /// Its arguments joined by spaces.
    pub command: &'a str,
    /// Its user.
    pub uid: u32,
}

/// What the rules say of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// No rule matches.
    None,
    /// This one does; its number, from 1, and what it is about in words.
    Rule(usize, &'a Rule, &'a str),
    /// A rule asks for what its pod is called, which is not known yet.
    Wait,
}

/// Rules, ready to be held against processes.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Compiled>,
}

#[derive(Clone, Debug)]
struct Compiled {
    rule: Rule,
    words: String,
    command: Option<GlobMatcher>,
    executable: Option<GlobMatcher>,
    image: Option<GlobMatcher>,
    namespace: Option<GlobMatcher>,
    unit: Option<GlobMatcher>,
    labels: Vec<(String, GlobMatcher)>,
    /// None where any will do; `Some(None)` is a name that nobody here has.
    user: Option<Option<u32>>,
}

impl Rules {
    /// Checks and prepares the rules.
    ///
    /// # Errors
    /// When one says what no process could ever be held against.
    pub fn new(rules: &[Rule]) -> Result<Self, RuleError> {
        let rules = (1..).zip(rules).map(|(number, rule)| Compiled::new(number, rule));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The first rule that matches a process. `place` is asked only by rules that want to know of it; while `patient`,
    /// a pod that is not known yet is waited for.
    pub fn of(&self, subject: Subject, patient: bool, place: &dyn Fn() -> PlaceFacts) -> Verdict<'_> {
        let mut known: Option<PlaceFacts> = None;
        for (number, rule) in (1..).zip(&self.rules) {
            if !rule.is_about(subject) {
                continue;
            }
            if rule.asks_place() {
                let place = known.get_or_insert_with(place);
                if patient && place.in_pod && place.namespace.is_none() && rule.asks_pod() {
                    return Verdict::Wait;
                }
                if !rule.is_at(place) {
                    continue;
                }
            }
            return Verdict::Rule(number, &rule.rule, &rule.words);
        }
        Verdict::None
    }

    /// Whether a rule asks for this very program to be observed, whatever it does. `place` as for [`Rules::of`].
    pub fn wants(&self, subject: Subject, place: &dyn Fn() -> PlaceFacts) -> bool {
        let names = |rule: &Compiled| rule.command.is_some() || rule.executable.is_some();
        let including = |rule: &Compiled| rule.rule.action == Action::Include && names(rule);
        if !self.rules.iter().any(|rule| including(rule) && rule.is_about(subject)) {
            return false;
        }
        match self.of(subject, true, place) {
            Verdict::None => false,
            Verdict::Rule(_, rule, _) => {
                rule.action == Action::Include
                    && (rule.about.command.is_some() || rule.about.executable.is_some())
            }
            Verdict::Wait => true,
        }
    }

    /// Whether what they say of a process can change as more becomes known of its place.
    #[must_use]
    pub fn ask_place(&self) -> bool {
        self.rules.iter().any(Compiled::asks_place)
    }

    /// Users that rules name and this machine does not know: those rules never match.
    #[must_use]
    pub fn unknown_users(&self) -> Vec<&str> {
        let unknown = self.rules.iter().filter(|rule| rule.user == Some(None));
        unknown.filter_map(|rule| rule.rule.about.user.as_deref()).collect()
    }
}

impl Compiled {
    fn new(number: usize, rule: &Rule) -> Result<Self, RuleError> {
        let glob = |condition, text: &str| {
            let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build();
            glob.map(|glob| glob.compile_matcher()).map_err(|error| RuleError::Glob {
                rule: number,
                condition,
                text: text.to_owned(),
                why: error.kind().to_string(),
            })
        };
        let optional =
            |condition, text: &Option<String>| text.as_deref().map(|text| glob(condition, text)).transpose();
        let useless = |what| Err(RuleError::Useless { rule: number, what });
        match rule.action {
            Action::Exclude if rule.name.is_some() => return useless("name"),
            Action::Exclude if !rule.attributes.is_empty() => return useless("attributes"),
            _ => {}
        }
        let about = &rule.about;
        let labels = about.labels.iter();
        let labels = labels.map(|(key, value)| Ok((key.clone(), glob("labels", value)?)));
        Ok(Self {
            command: optional("command", &about.command)?,
            executable: optional("executable", &about.executable)?,
            image: optional("image", &about.image)?,
            namespace: optional("namespace", &about.namespace)?,
            unit: optional("unit", &about.unit)?,
            labels: labels.collect::<Result<_, RuleError>>()?,
            user: about.user.as_deref().map(uid),
            words: words(about),
            rule: rule.clone(),
        })
    }

    fn is_about(&self, subject: Subject) -> bool {
        holds(&self.command, Some(subject.command))
            && holds(&self.executable, Some(subject.executable))
            && self.user.is_none_or(|user| user == Some(subject.uid))
    }

    fn is_at(&self, place: &PlaceFacts) -> bool {
        let label = |(key, value): &(String, GlobMatcher)| {
            place.labels.iter().any(|(has, text)| has == key && value.is_match(text))
        };
        let runtime = self.rule.about.container_runtime.as_ref();
        holds(&self.image, place.image.as_deref())
            && holds(&self.namespace, place.namespace.as_deref())
            && holds(&self.unit, place.unit.as_deref())
            && self.labels.iter().all(label)
            && runtime.is_none_or(|runtime| place.container_runtime.as_ref() == Some(runtime))
    }

    fn asks_pod(&self) -> bool {
        self.image.is_some() || self.namespace.is_some() || !self.labels.is_empty()
    }

    fn asks_place(&self) -> bool {
        self.asks_pod() || self.unit.is_some() || self.rule.about.container_runtime.is_some()
    }
}

/// What is not known does not match.
fn holds(glob: &Option<GlobMatcher>, text: Option<&str>) -> bool {
    glob.as_ref().is_none_or(|glob| text.is_some_and(|text| glob.is_match(text)))
}

/// A rule's conditions, for whoever wonders why.
fn words(about: &Match) -> String {
    let conditions = [
        ("command", &about.command),
        ("executable", &about.executable),
        ("image", &about.image),
        ("namespace", &about.namespace),
        ("unit", &about.unit),
        ("container runtime", &about.container_runtime),
        ("user", &about.user),
    ];
    let given = conditions.iter().filter_map(|(name, text)| Some(format!("{name} {}", text.as_ref()?)));
    let labels = about.labels.iter().map(|(key, value)| format!("label {key}={value}"));
    let all: Vec<_> = given.chain(labels).collect();
    if all.is_empty() { "everything".to_owned() } else { all.join(", ") }
}

/// The number of a user.
fn uid(user: &str) -> Option<u32> {
    let named = || {
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        users
            .lines()
            .find_map(|line| line.strip_prefix(user)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok())
    };
    user.parse().ok().or_else(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(yaml: &str) -> Rules {
        let rules: Vec<Rule> = serde_saphyr::from_str(yaml).unwrap();
        Rules::new(&rules).unwrap()
    }

    const SUBJECT: Subject =
        Subject { executable: "/usr/bin/python3.12", command: "python3 /opt/bin/vllm serve m/x", uid: 0 };

    fn number(rules: &Rules, patient: bool, place: &PlaceFacts) -> Option<usize> {
        match rules.of(SUBJECT, patient, &|| place.clone()) {
            Verdict::Rule(number, ..) => Some(number),
            Verdict::None => None,
            Verdict::Wait => Some(0),
        }
    }

    #[test]
    fn all_conditions_of_a_rule_hold_and_the_first_rule_decides() {
        let nowhere = PlaceFacts::default();
        for (text, matching) in [
            ("[{match: {command: '*vllm serve*'}}]", Some(1)),
            ("[{match: {command: 'vllm serve*'}}, {match: {}, action: exclude}]", Some(2)),
            ("[{match: {executable: '/usr/bin/python3*', user: root}}]", Some(1)),
            ("[{match: {executable: '/usr/bin/python3*', user: '7'}}]", None),
            ("[{match: {user: nobody-of-this-name}}]", None),
            ("[{match: {command: '*serve {m,n}/?'}}]", Some(1)),
            ("[{match: {unit: '*'}}, {match: {container_runtime: docker}}]", None),
            ("[]", None),
        ] {
            assert_eq!(number(&rules(text), true, &nowhere), matching, "{text}");
        }
        assert_eq!(rules("[{match: {user: nobody-of-this-name}}]").unknown_users(), ["nobody-of-this-name"]);
    }

    #[test]
    fn a_pod_that_is_not_known_yet_is_waited_for_only_where_a_rule_asks() {
        let asks = rules("[{match: {namespace: prod, labels: {app: 'chat-*'}}, name: chat}]");
        let unknown = PlaceFacts { in_pod: true, ..PlaceFacts::default() };
        assert_eq!((number(&asks, true, &unknown), number(&asks, false, &unknown)), (Some(0), None));
        assert_eq!(number(&asks, true, &PlaceFacts::default()), None);
        let mut known = PlaceFacts { namespace: Some("prod".to_owned()), ..unknown.clone() };
        assert_eq!(number(&asks, true, &known), None);
        known.labels.push(("app".to_owned(), "chat-7".to_owned()));
        assert_eq!(number(&asks, true, &known), Some(1));
        let other = rules("[{match: {command: '*serve*'}}, {match: {namespace: prod}}]");
        assert_eq!(number(&other, true, &unknown), Some(1), "an earlier rule decides without the pod");
    }

    #[test]
    fn only_a_rule_that_names_the_program_takes_any_process() {
        let nowhere = || PlaceFacts::default();
        for (text, wanted) in [
            ("[{match: {command: '*serve*'}}]", true),
            ("[{match: {user: root}}]", false),
            ("[{match: {command: '*serve*'}, action: exclude}]", false),
            ("[{match: {user: root}, action: exclude}, {match: {command: '*serve*'}}]", false),
        ] {
            assert_eq!(rules(text).wants(SUBJECT, &nowhere), wanted, "{text}");
        }
    }

    #[test]
    fn rules_that_cannot_work_are_refused() {
        for (text, why) in [
            ("[{match: {}}, {match: {command: 'a[b'}}]", "rule 2: `command` is no glob"),
            ("[{match: {labels: {app: '{a'}}}]", "rule 1: `labels` is no glob"),
            ("[{match: {}, action: exclude, name: x}]", "rule 1 excludes, so its `name`"),
        ] {
            let rules: Vec<Rule> = serde_saphyr::from_str(text).unwrap();
            let error = Rules::new(&rules).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
