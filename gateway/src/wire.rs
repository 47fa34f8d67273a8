//! Bodies of `chat/completions` and `completions` in, an [`Ask`] and a
//! [`Delivery`] out.
//!
//! Every check of a request that needs no model is made here, and names its
//! field.  What is understood but not done in this build (tools, …) is accepted
//! and listed in [`Delivery::ignored`], which the answer repeats: nothing is
//! dropped in silence, and no client fails for sending its usual body.
//!
//! To read one more field: take it from `fields` in [`common`], or in the one body
//! that has it, add a row to the tests, and one to the README's table, which a
//! test compares with what is read from `fields` here.

use config::{Circles, Sampling, Think};
use engine::{Effort, Thinking};
use router_model::{Role, Turn};
use serde_json::Value;

use crate::ask::{AUTO, Ask, Bending, Dry, Input};
use crate::conversation::Context;
use crate::errors::Refusal;
use crate::fields::{Fields, json, wrong};

/// What a raw completion generates when the request does not say; as OpenAI does.
const RAW_MAX_TOKENS: usize = 16;

/// More texts in a list than any client sends; each one costs a search per token.
const MOST_TEXTS: usize = 16;

/// Bytes of such a text: a stop text is looked for at each token, as far as it is long.
const LONGEST_TEXT: usize = 1024;

/// More than OpenAI takes; each is added at each token.
const MOST_BIASES: usize = 1024;

/// What a repetition does not go beyond, as in llama.cpp.
const BREAKERS: &[&str] = &["\n", ":", "\"", "*"];

/// Answers to one request at most: each takes a row of the batch and memory of its own.
const MOST_ANSWERS: i64 = 8;

/// OpenAI's limit; more are seldom of use, and each is looked up for each token.
const MOST_SCORES: i64 = 20;

/// Fields that ask for something this build does not do.
const NOT_DONE: &[&str] = &["tools", "functions", "response_format", "audio", "prediction"];

/// Names of tools that are looked at, and bytes of each: enough to know an editor by.
const MOST_TOOLS: usize = 64;
const LONGEST_NAME: usize = 64;

/// A parser of one kind of body.
pub type Parse = fn(&[u8]) -> Result<(Ask, Delivery), Refusal>;

/// How the client wants its answer; of no interest to the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delivery {
    /// As server-sent events.
    pub stream: bool,
    /// A last frame with the token counts.
    pub include_usage: bool,
    /// The prompt is repeated before the completion.
    pub echo: Option<String>,
    /// Fields that were sent and have no effect.
    pub ignored: Vec<&'static str>,
}

/// Parses the body of `chat/completions`.
///
/// # Errors
/// [`Refusal::Json`], or [`Refusal::Field`] with the path of the field.
pub fn chat(body: &[u8]) -> Result<(Ask, Delivery), Refusal> {
    let body = json(body)?;
    let fields = Fields::top(&body)?;
    let messages = messages(&fields)?;
    let mut read = common(&fields)?;
    // The newer name wins, when a client sends both.
    let most = match fields.whole("max_completion_tokens", -1)? {
        None => fields.whole("max_tokens", -1)?.map(|most| ("max_tokens", most)),
        Some(most) => Some(("max_completion_tokens", most)),
    };
    read.0.sampling.max_tokens = match most {
        // Some clients say "no bound" so.
        None | Some((_, -1)) => None,
        Some((field, 0)) => return Err(Refusal::field(field, "0 is less than 1")),
        Some((_, most)) => usize::try_from(most).ok(),
    };
    let top = fields.whole_in("top_logprobs", 0..=MOST_SCORES)?;
    read.0.scores = match fields.flag("logprobs")? {
        Some(true) => Some(top.unwrap_or(0)),
        _ if top.is_some_and(|n| n > 0) => {
            return Err(Refusal::field("top_logprobs", "it needs `logprobs` to be true"));
        }
        _ => None,
    };
    read.0.thinking = thinking(&fields, &mut read.1)?;
    read.0.input = Input::Chat(messages);
    read.0.context = context(&fields);
    Ok(read)
}

/// Parses the body of `completions`.
///
/// # Errors
/// As [`chat`].
pub fn completion(body: &[u8]) -> Result<(Ask, Delivery), Refusal> {
    let body = json(body)?;
    let fields = Fields::top(&body)?;
    let input = prompt(&fields)?;
    let (mut ask, mut delivery) = common(&fields)?;
    ask.context = context(&fields);
    if suffix(&fields)? {
        ask.context.suffix = true;
        delivery.ignored.push("suffix");
    }
    if fields.flag("echo")? == Some(true) {
        match &input {
            Input::Text(text) => delivery.echo = Some(text.clone()),
            _ => delivery.ignored.push("echo"),
        }
    }
    ask.scores = match fields.get("logprobs") {
        Some(Value::Bool(false)) => None,
        _ => fields.whole_in("logprobs", 0..=MOST_SCORES)?,
    };
    if ask.scores.is_some() && delivery.echo.is_some() {
        let message = "with `echo` the prompt would need them too, and it is not scored";
        return Err(Refusal::field("logprobs", message));
    }
    let most = fields.whole("max_tokens", 1)?.and_then(|n| usize::try_from(n).ok());
    ask.sampling.max_tokens = Some(most.unwrap_or(RAW_MAX_TOKENS));
    ask.input = input;
    Ok((ask, delivery))
}

/// What a body for `route` asks about: that of a chat or of a completion, or `{"text": …}`.
///
/// # Errors
/// As [`chat`].
pub fn route(body: &[u8]) -> Result<Ask, Refusal> {
    let body = json(body)?;
    let asked = Fields::top(&body)?;
    let model = asked.text("model")?.filter(|m| !m.is_empty()).unwrap_or(AUTO);
    if let Some(text) = asked.text("text")? {
        return Ok(Ask::text(model, text));
    }
    let mut context = context(&asked);
    let input = match (asked.get("messages"), asked.get("prompt")) {
        (None, None) => {
            let known = "send `text`, or `messages` as for chat/completions";
            return Err(Refusal::field("text", known));
        }
        (None, Some(_)) => {
            context.suffix = suffix(&asked)?;
            prompt(&asked)?
        }
        (Some(_), _) => Input::Chat(messages(&asked)?),
    };
    Ok(Ask { input, context, ..Ask::text(model, "") })
}

/// What both bodies have.
fn common(fields: &Fields) -> Result<(Ask, Delivery), Refusal> {
    let answers = fields.whole_in("n", 1..=MOST_ANSWERS)?.unwrap_or(1);
    if fields.whole_in("best_of", 1..=MOST_ANSWERS)?.is_some_and(|of| of != answers) {
        return Err(Refusal::field("best_of", "all answers are given; leave it out, and set `n`"));
    }
    let sampling = Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        min_p: fields.number("min_p", 0.0..=1.0)?,
        // Zero would divide by itself.  The second name is llama.cpp's.
        repetition_penalty: match fields.number("repetition_penalty", 0.01..=10.0)? {
            None => fields.number("repeat_penalty", 0.01..=10.0)?,
            penalty => penalty,
        },
        // Some servers write "all tokens" as -1, some as 0.
        top_k: fields.whole("top_k", -1)?.map(|k| usize::try_from(k).unwrap_or(0)),
        max_tokens: None,
    };
    let ask = Ask {
        model: fields.text("model")?.filter(|m| !m.is_empty()).unwrap_or(AUTO).to_owned(),
        input: Input::Text(String::new()),
        sampling,
        bending: bending(fields)?,
        seed: seed(fields)?,
        answers,
        scores: None,
        stop: stop(fields)?,
        circles: circles(fields)?,
        thinking: Thinking::default(),
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
        context: Context::default(),
    };
    let include_usage = match fields.object("stream_options")? {
        Some(options) => options.flag("include_usage")?.unwrap_or(false),
        None => false,
    };
    let delivery = Delivery {
        stream: fields.flag("stream")?.unwrap_or(false),
        include_usage,
        echo: None,
        ignored: NOT_DONE.iter().copied().filter(|n| asks_for_more(fields.get(n))).collect(),
    };
    Ok((ask, delivery))
}

/// There is a text after the gap.
fn suffix(fields: &Fields) -> Result<bool, Refusal> {
    Ok(fields.text("suffix")?.is_some_and(|s| !s.is_empty()))
}

/// What the request belongs to.  Fields of another type name nothing: no client fails for them.
fn context(fields: &Fields) -> Context {
    let mut ids = Vec::new();
    let mut id = |name: &'static str, value: Option<&Value>| {
        ids.extend(value.and_then(Value::as_str).map(|id| (name, id.to_owned())));
    };
    id("user", fields.get("user"));
    id("prompt_cache_key", fields.get("prompt_cache_key"));
    id("metadata.user_id", fields.get("metadata").and_then(|m| m.get("user_id")));
    let offered = [fields.get("tools"), fields.get("functions")];
    let offered = offered.into_iter().flatten().filter_map(Value::as_array).flatten();
    let named = |tool: &Value| {
        let name = tool.get("function").unwrap_or(tool).get("name")?.as_str()?;
        (name.len() <= LONGEST_NAME).then(|| name.to_owned())
    };
    Context {
        ids,
        tools: offered.filter_map(named).take(MOST_TOOLS).collect(),
        open_calls: fields.get("messages").and_then(Value::as_array).is_some_and(|m| open_calls(m)),
        ..Context::default()
    }
}

/// Whether the last assistant's turn called a tool that has not answered.
fn open_calls(messages: &[Value]) -> bool {
    let role = |message: &Value, role: &str| message["role"].as_str() == Some(role);
    let Some(at) = messages.iter().rposition(|m| role(m, "assistant")) else { return false };
    let (last, after) = (&messages[at], &messages[at + 1..]);
    let answers = after.iter().filter(|m| role(m, "tool") || role(m, "function")).count();
    let calls = last["tool_calls"].as_array().map_or(0, Vec::len);
    calls.max(usize::from(last["function_call"].is_object())) > answers
}

/// Negative seeds are as good as others, and so are those beyond what has a sign.
fn seed(fields: &Fields) -> Result<Option<u64>, Refusal> {
    if let Some(seed) = fields.get("seed").and_then(Value::as_u64) {
        return Ok(Some(seed));
    }
    Ok(fields.whole("seed", i64::MIN)?.map(i64::cast_unsigned))
}

fn bending(fields: &Fields) -> Result<Bending, Refusal> {
    Ok(Bending {
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
        typical_p: fields.number("typical_p", 0.0..=1.0)?,
        xtc_probability: fields.number("xtc_probability", 0.0..=1.0)?.unwrap_or(0.0),
        xtc_threshold: fields.number("xtc_threshold", 0.0..=1.0)?,
        // llama.cpp's clients send -1 for none.
        top_n_sigma: fields.number("top_n_sigma", -1.0..=100.0)?.unwrap_or(0.0),
        dry: dry(fields)?,
        // -1 is the whole context.
        penalty_window: fields
            .whole("repeat_last_n", -1)?
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
    })
}

fn dry(fields: &Fields) -> Result<Option<Dry>, Refusal> {
    let multiplier = fields.number("dry_multiplier", 0.0..=100.0)?.unwrap_or(0.0);
    let breakers = match fields.list("dry_sequence_breakers")? {
        None => BREAKERS.iter().map(|text| (*text).to_owned()).collect(),
        Some(list) => texts("dry_sequence_breakers", list)?,
    };
    let dry = Dry {
        multiplier,
        base: fields.number("dry_base", 1.0..=100.0)?.unwrap_or(1.75),
        allowed_length: fields.whole_in("dry_allowed_length", 1..=1 << 20)?.unwrap_or(2),
        // -1 is the whole context.
        window: fields
            .whole("dry_penalty_last_n", -1)?
            .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        breakers,
    };
    Ok((multiplier > 0.0).then_some(dry))
}

fn circles(fields: &Fields) -> Result<Option<Circles>, Refusal> {
    let Some(name) = fields.text("circles")? else { return Ok(None) };
    let known = || Refusal::field("circles", format!("{} is expected", Circles::WANT));
    Circles::named(name).map(Some).ok_or_else(known)
}

/// OpenAI's field, or the variables of chat templates as llama.cpp and vLLM take them.
fn thinking(fields: &Fields, delivery: &mut Delivery) -> Result<Thinking, Refusal> {
    let mut said = Thinking::default();
    if let Some(variables) = fields.object("chat_template_kwargs")? {
        let switches = [variables.flag("enable_thinking")?, variables.flag("thinking")?];
        if let Some(on) = switches.into_iter().flatten().next() {
            said.think = if on { Think::On } else { Think::Off };
        }
        if let Some(word) = variables.text("reasoning_effort")? {
            said = effort(word, &variables.path("reasoning_effort"))?;
        }
        let known = ["enable_thinking", "thinking", "reasoning_effort"];
        if variables.names().any(|name| !known.contains(&name)) {
            delivery.ignored.push("chat_template_kwargs");
        }
    }
    match fields.text("reasoning_effort")? {
        Some(word) => effort(word, "reasoning_effort"),
        None => Ok(said),
    }
}

/// More degrees than templates know are sent: the nearest is taken.
fn effort(word: &str, path: &str) -> Result<Thinking, Refusal> {
    let (think, effort) = match word {
        "none" => (Think::Off, None),
        "minimal" | "low" => (Think::On, Some(Effort::Low)),
        "medium" => (Think::On, Some(Effort::Medium)),
        "high" | "xhigh" | "max" => (Think::On, Some(Effort::High)),
        _ => {
            let known = "`none`, `minimal`, `low`, `medium`, `high` or `xhigh` is expected";
            return Err(Refusal::field(path, known));
        }
    };
    Ok(Thinking { think, effort })
}

/// `{"<token id>": -100 to 100}`; the ends stand for never and (nearly) always.
fn logit_bias(fields: &Fields) -> Result<Vec<(u32, f32)>, Refusal> {
    let Some(Value::Object(map)) = fields.get("logit_bias") else {
        return match fields.get("logit_bias") {
            None => Ok(Vec::new()),
            Some(other) => Err(wrong("logit_bias", "an object of token ids and numbers", other)),
        };
    };
    if map.len() > MOST_BIASES {
        let message = format!("{} tokens were sent, at most {MOST_BIASES} are used", map.len());
        return Err(Refusal::field("logit_bias", message));
    }
    let one = |(id, value): (&String, &Value)| {
        let path = format!("logit_bias.{id}");
        let id: u32 = id.parse().map_err(|_| Refusal::field(&path, "the key is no token id"))?;
        match value.as_f64() {
            Some(-100.0) => Ok((id, f32::NEG_INFINITY)),
            Some(bias) if (-100.0..=100.0).contains(&bias) => Ok((id, bias as f32)),
            _ => Err(wrong(&path, "a number from -100 to 100", value)),
        }
    };
    map.iter().map(one).collect()
}

/// `false`, `0`, `[]`, `{}` and the plain text format ask for nothing.
fn asks_for_more(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true) | Value::String(_)) => true,
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => {
            !map.is_empty() && map.get("type").and_then(Value::as_str) != Some("text")
        }
    }
}

fn stop(fields: &Fields) -> Result<Vec<String>, Refusal> {
    let list = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(one @ Value::String(_)) => texts("stop", std::slice::from_ref(one))?,
        Some(Value::Array(list)) => texts("stop", list)?,
        Some(other) => return Err(wrong("stop", "a string or an array of strings", other)),
    };
    // An empty text would end every answer before it starts.
    Ok(list.into_iter().filter(|s| !s.is_empty()).collect())
}

fn texts(path: &str, list: &[Value]) -> Result<Vec<String>, Refusal> {
    if list.len() > MOST_TEXTS {
        let message = format!("{} texts were sent, at most {MOST_TEXTS} are used", list.len());
        return Err(Refusal::field(path, message));
    }
    let text = |(i, v): (usize, &Value)| {
        let path = format!("{path}[{i}]");
        let text = v.as_str().ok_or_else(|| wrong(&path, "a string", v))?;
        if text.len() > LONGEST_TEXT {
            let message =
                format!("{} bytes were sent, at most {LONGEST_TEXT} are used", text.len());
            return Err(Refusal::field(path, message));
        }
        Ok(text.to_owned())
    };
    list.iter().enumerate().map(text).collect()
}

fn messages(fields: &Fields) -> Result<Vec<Turn>, Refusal> {
    let Some(list) = fields.list("messages")? else {
        return Err(Refusal::field("messages", "an array of messages is needed"));
    };
    if list.is_empty() {
        return Err(Refusal::field("messages", "at least one message is needed"));
    }
    list.iter().enumerate().map(|(i, v)| message(v, &format!("messages[{i}]"))).collect()
}

fn message(value: &Value, path: &str) -> Result<Turn, Refusal> {
    let said = Fields::at(value, path)?;
    let role = match said.text("role")? {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        _ => {
            let known = "`system`, `developer`, `user`, `assistant` or `tool` is expected";
            return Err(Refusal::field(said.path("role"), known));
        }
    };
    let text = match said.get("content") {
        Some(content) => text_of(content, &said.path("content"))?,
        // An assistant's turn may be nothing but tool calls.
        None if role == Role::Assistant => String::new(),
        None => return Err(Refusal::field(said.path("content"), "a text is needed")),
    };
    Ok(Turn { role, text })
}

/// The text of a content: a string, or a list of parts.
fn text_of(content: &Value, path: &str) -> Result<String, Refusal> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        other => return Err(wrong(path, "a string or an array of parts", other)),
    };
    let mut text = String::new();
    for (i, part) in parts.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if let Value::String(plain) = part {
            text.push_str(plain);
            continue;
        }
        let part = Fields::at(part, &path)?;
        match part.text("type")? {
            Some("text" | "input_text" | "output_text") => {
                let missing = || Refusal::field(part.path("text"), "a text is needed");
                text.push_str(part.text("text")?.ok_or_else(missing)?);
            }
            Some("refusal") => text.push_str(part.text("refusal")?.unwrap_or_default()),
            _ => {
                let only = "only parts of type `text` can be read by this model";
                return Err(Refusal::field(part.path("type"), only));
            }
        }
    }
    Ok(text)
}

fn prompt(fields: &Fields) -> Result<Input, Refusal> {
    let expected = "a string, or an array of token ids";
    let value = fields.get("prompt").ok_or_else(|| Refusal::field("prompt", "it is needed"))?;
    match value {
        Value::String(text) => Ok(Input::Text(text.clone())),
        Value::Array(list) => match list.as_slice() {
            [] => Err(Refusal::field("prompt", "at least one token is needed")),
            [Value::String(text)] => Ok(Input::Text(text.clone())),
            [Value::Array(inner)] => tokens(inner),
            [Value::String(_) | Value::Array(_), ..] => {
                Err(Refusal::field("prompt", "only one prompt per request is answered"))
            }
            numbers => tokens(numbers),
        },
        other => Err(wrong("prompt", expected, other)),
    }
}

fn tokens(list: &[Value]) -> Result<Input, Refusal> {
    let token = |(i, v): (usize, &Value)| {
        let id = v.as_u64().and_then(|n| u32::try_from(n).ok());
        id.ok_or_else(|| wrong(&format!("prompt[{i}]"), "a token id", v))
    };
    if list.is_empty() {
        return Err(Refusal::field("prompt", "at least one token is needed"));
    }
    Ok(Input::Tokens(list.iter().enumerate().map(token).collect::<Result<_, _>>()?))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
