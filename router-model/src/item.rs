//! A labelled text: what training learns from and evaluation asks.

use serde::Serialize;

/// Where an item comes from, which says how it is shown and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A benchmark's question, with or without options.
    Question,
    /// What somebody asked or wrote.
    Said,
    /// A domain's own example.
    Example,
    /// The name of a subject, to be asked about in many ways.
    Topic,
    /// A heading of a book, which is often such a name.
    Heading,
    /// A question that a book puts to its reader.
    Exercise,
    /// What a model answered.
    Answer,
    /// A few sentences of a book.
    Passage,
    /// Of no domain: small talk, another language, noise.
    Aside,
}

impl Kind {
    pub const ALL: &[Kind] = &[
        Kind::Question,
        Kind::Said,
        Kind::Example,
        Kind::Topic,
        Kind::Heading,
        Kind::Exercise,
        Kind::Answer,
        Kind::Passage,
        Kind::Aside,
    ];
}

/// A text of one domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub text: String,
    pub options: Vec<String>,
    /// A domain's id.
    pub domain: String,
    pub kind: Kind,
    /// Whether the line itself named the domain; only such items are held out.
    pub own_label: bool,
    /// `question_id`: an answer belongs to the question with the same one.
    pub question: Option<i64>,
}

/// The label of what belongs to no domain.
pub(crate) const NONE: &str = "none";

impl Item {
    /// A text whose file says the domain, without options.
    pub(crate) fn new(text: &str, domain: &str, kind: Kind) -> Item {
        Item {
            text: text.trim().to_owned(),
            options: Vec::new(),
            domain: domain.to_owned(),
            kind,
            own_label: false,
            question: None,
        }
    }

    /// A text of no domain.
    pub fn aside(text: &str) -> Item {
        Item::new(text, NONE, Kind::Aside)
    }

    /// How much one form of it counts, found on the tuning tenth.  Users ask; they
    /// seldom lecture.  Collections of one domain outnumber all other questions: at a
    /// whole question each, arithmetic for schools alone cost two points.
    pub(crate) fn weight(&self) -> f32 {
        match self.kind {
            Kind::Said | Kind::Example => 8.0,
            Kind::Aside => 6.0,
            Kind::Topic => 2.0,
            Kind::Question if self.own_label => 1.0,
            Kind::Question | Kind::Answer | Kind::Exercise | Kind::Heading => 0.1,
            Kind::Passage => 0.02,
        }
    }

    /// The question with its options, as a user would paste it.
    pub fn whole(&self) -> String {
        let mut text = self.text.clone();
        for (option, letter) in self.options.iter().zip('A'..) {
            text.push_str(&format!("\n{letter}. {option}"));
        }
        text
    }
}
