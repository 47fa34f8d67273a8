//! Which conversation a request belongs to, as marks that tell nothing else.
//!
//! A client may say it, in a header or a field of the body ([`SAID`], the first one that is there counts); else the
//! messages themselves do: each has the mark of everything up to it, and the longest beginning that is known is the
//! conversation.  All marks hold the API key, so that no key finds another's conversations, whatever it sends.
//!
//! Not used: the User-Agent, which versions change, and `x-request-id`, which names one request.

use router_model::Role;
use sha2::{Digest, Sha256};

/// Longer than any id; more would be hashed at each request for nothing.
const LONGEST_ID: usize = 512;

/// The first half of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark([u8; 16]);

impl Mark {
    /// Of all parts; `["ab"]` and `["a", "b"]` differ.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut sha = Sha256::new();
        for part in parts {
            sha.update((part.len() as u64).to_le_bytes());
            sha.update(part);
        }
        let mut mark = [0; 16];
        mark.copy_from_slice(&sha.finalize()[..16]);
        Self(mark)
    }
}

/// Where an id may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Header(&'static str),
    /// A field of the body; see [`Ids::fields`].
    Field(&'static str),
}

/// Where ids of conversations stand, by whom they are sent.
pub const SAID: &[Said] = &[
    // opencode; vLLM's semantic router
    Said::Header("x-session-id"),
    Said::Header("x-session-affinity"),
    // codex
    Said::Header("session-id"),
    Said::Header("thread-id"),
    // Claude Code
    Said::Header("x-claude-code-session-id"),
    // clients of Anthropic's API
    Said::Field("metadata.user_id"),
    // llama.cpp's server
    Said::Header("x-conversation-id"),
    // codex, Zed
    Said::Field("prompt_cache_key"),
];

/// Who asks, and what they call their conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Holds the API key, and the user whom the body names.
    pub scope: Mark,
    /// Of the id that was sent, if there was one.
    pub session: Option<Mark>,
}

impl Identity {
    /// Of a request with this key, if it has one; `header` and `field` look up by name.
    pub fn new<'a>(
        key: Option<&[u8]>,
        header: impl Fn(&str) -> Option<&'a [u8]>,
        field: impl Fn(&str) -> Option<&'a str>,
    ) -> Self {
        // No key and an empty one are the same.
        let user = field("user").unwrap_or_default();
        let scope = Mark::of(&[b"scope", key.unwrap_or_default(), user.as_bytes()]);
        let id = |said: &Said| match said {
            Said::Header(name) => header(name),
            Said::Field(name) => field(name).map(str::as_bytes),
        };
        let usable = |id: &&[u8]| !id.trim_ascii().is_empty() && id.len() <= LONGEST_ID;
        let id = SAID.iter().find_map(|said| id(said).filter(usable));
        Self { scope, session: id.map(|id| Mark::of(&[b"session", &scope.0, id])) }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new(None, |_| None, |_| None)
    }
}

/// The marks of all beginnings of a conversation, shortest first.
pub struct Chain {
    last: Mark,
    marks: Vec<Mark>,
}

impl Chain {
    pub fn new(scope: Mark) -> Self {
        Self { last: Mark::of(&[b"chain", &scope.0]), marks: Vec::new() }
    }

    /// Another message.
    pub fn add(&mut self, role: Role, text: &str) {
        let role: &[u8] = match role {
            Role::System => b"s",
            Role::User => b"u",
            Role::Assistant => b"a",
            Role::Tool => b"t",
        };
        self.last = Mark::of(&[&self.last.0, role, text.trim().as_bytes()]);
        self.marks.push(self.last);
    }

    /// Everything so far was about something else.
    pub fn void(&mut self) {
        self.marks.clear();
    }

    pub fn marks(self) -> Vec<Mark> {
        self.marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id of a request with `headers` and `fields`, as `name: value` lines.
    fn identity(key: &str, headers: &str, fields: &str) -> Identity {
        fn find<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
            lines
                .lines()
                .find_map(|line| line.trim().split_once(": ").filter(|(n, _)| *n == name))
                .map(|(_, v)| v)
        }
        Identity::new(
            Some(key.as_bytes()),
            |name| find(headers, name).map(str::as_bytes),
            |name| find(fields, name),
        )
    }

    #[test]
    fn the_first_that_is_said_counts() {
        #[track_caller]
        fn check(headers: &str, fields: &str, expect: &str) {
            let expect = identity("k", &format!("x-session-id: {expect}"), "").session;
            assert_eq!(identity("k", headers, fields).session, expect);
        }
        check("x-session-affinity: a\nx-session-id: b", "", "b");
        check("thread-id: a\nsession-id: b", "prompt_cache_key: c", "b");
        check("x-conversation-id: a", "metadata.user_id: b", "b");
        check("x-conversation-id: a", "prompt_cache_key: b", "a");
        check("", "prompt_cache_key: b", "b");
        // What names a request, or nothing, is no id.
        assert_eq!(identity("k", "x-request-id: a\nx-client-request-id: b", "").session, None);
        assert_eq!(identity("k", "x-session-id:  ", "").session, None);
        let long = "x".repeat(LONGEST_ID + 1);
        check(&format!("x-session-id: {long}\nsession-id: b"), "", "b");
    }

    #[test]
    fn keys_and_users_do_not_meet() {
        let all = [
            identity("a", "x-session-id: s", ""),
            identity("b", "x-session-id: s", ""),
            identity("a", "x-session-id: s", "user: u"),
            // Moving letters between the parts makes nobody else's mark.
            identity("as", "x-session-id: ", "prompt_cache_key: s"),
            identity("a", "x-session-id: ss", ""),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other.session != one.session));
        }
        assert_ne!(all[0].scope, all[1].scope);
    }

    #[test]
    fn beginnings() {
        let marks = |key: &str, said: &[(Role, &str)]| {
            let mut chain = Chain::new(identity(key, "", "").scope);
            said.iter().for_each(|(role, text)| chain.add(*role, text));
            chain.marks()
        };
        use Role::{Assistant, System, User};
        let whole = marks("k", &[(System, "s"), (User, "a"), (Assistant, "b"), (User, "c")]);
        assert_eq!(whole[..2], marks("k", &[(System, "s"), (User, "a")]));
        assert_eq!(whole[..2], marks("k", &[(System, "s "), (User, "\na")]));
        assert_ne!(whole[1], marks("k", &[(System, "t"), (User, "a")])[1]);
        assert_ne!(whole[1], marks("k", &[(User, "s"), (User, "a")])[1]);
        assert_ne!(whole[1], marks("l", &[(System, "s"), (User, "a")])[1]);
    }
}
