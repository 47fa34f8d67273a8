//! Bodies as clients send them, and what is made of them.

use super::*;
use crate::record::role;

/// `expect` is what is read, in one line; or the field at fault and the start of the message.
#[track_caller]
fn check(parse: Parse, body: &str, expect: &str) {
    let seen = match parse(body.as_bytes()) {
        Ok((ask, delivery)) => line(&ask, &delivery),
        Err(refusal) => format!("! {refusal}"),
    };
    assert_eq!(seen, expect, "{body}");
}

/// What was read; only what differs from the defaults.
fn line(ask: &Ask, delivery: &Delivery) -> String {
    let mut words = vec![ask.model.clone()];
    match &ask.input {
        Input::Chat(messages) => {
            words.extend(messages.iter().map(|m| format!("{}:{}", role(m.role), m.text)));
        }
        Input::Text(text) => words.push(format!("text:{text}")),
        Input::Tokens(tokens) => words.push(format!("tokens:{tokens:?}")),
    }
    let s = &ask.sampling;
    let floats = [
        ("temperature", s.temperature),
        ("top_p", s.top_p),
        ("min_p", s.min_p),
        ("penalty", s.repetition_penalty),
    ];
    words.extend(floats.iter().filter_map(|(n, v)| v.map(|v| format!("{n}={v}"))));
    let b = &ask.bending;
    let more = [
        ("frequency", b.frequency_penalty),
        ("presence", b.presence_penalty),
        ("xtc", b.xtc_probability),
        ("sigma", b.top_n_sigma),
    ];
    words.extend(more.iter().filter(|(_, v)| *v != 0.0).map(|(n, v)| format!("{n}={v}")));
    words.extend(b.typical_p.map(|p| format!("typical={p}")));
    words.extend(b.xtc_threshold.map(|p| format!("above={p}")));
    words.extend(b.penalty_window.map(|n| format!("window={n}")));
    words.extend(b.dry.iter().map(|dry| {
        let Dry { multiplier, base, allowed_length, window, breakers } = dry;
        format!("dry={multiplier},{base},{allowed_length},{window},{breakers:?}")
    }));
    words.extend(b.logit_bias.iter().map(|(id, v)| format!("bias[{id}]={v}")));
    words.extend(s.top_k.map(|k| format!("top_k={k}")));
    words.extend(s.max_tokens.map(|k| format!("max={k}")));
    words.extend(ask.seed.map(|k| format!("seed={k}")));
    words.extend((ask.answers != 1).then(|| format!("n={}", ask.answers)));
    words.extend(ask.scores.map(|n| format!("scores={n}")));
    words.extend(ask.circles.map(|c| format!("circles={c:?}")));
    let thinking = ask.thinking;
    words.extend((thinking.think != Think::Auto).then(|| format!("think={:?}", thinking.think)));
    words.extend(thinking.effort.map(|e| format!("effort={e:?}")));
    words.extend(ask.stop.iter().map(|t| format!("stop={t}")));
    let context = &ask.context;
    words.extend(context.ids.iter().map(|(name, id)| format!("{name}:{id}")));
    words.extend((!context.tools.is_empty()).then(|| format!("tools:{}", context.tools.join(","))));
    words.extend(context.open_calls.then(|| "open calls".to_owned()));
    words.extend(context.suffix.then(|| "before a suffix".to_owned()));
    words.extend(ask.ignore_eos.then(|| "ignore_eos".to_owned()));
    words.extend(delivery.stream.then(|| "stream".to_owned()));
    words.extend(delivery.include_usage.then(|| "usage".to_owned()));
    words.extend(delivery.echo.iter().map(|e| format!("echo={e}")));
    words.extend(delivery.ignored.iter().map(|n| format!("-{n}")));
    words.join(" ")
}

#[test]
fn what_clients_send() {
    let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
    // The least: the model is found by itself.
    check(chat, &format!("{{{hi}}}"), "auto user:hi");
    check(chat, &format!(r#"{{"model":"law",{hi}}}"#), "law user:hi");
    // SDKs send null for what is not set.
    check(
        chat,
        &format!(
            r#"{{"model":null,"temperature":null,"stop":null,"stream":null,"tools":null,{hi}}}"#
        ),
        "auto user:hi",
    );
    // An editor: a list of parts, both limits, tools, usage.
    check(
        chat,
        r#"{"model":"auto","messages":[{"role":"developer","content":[{"type":"text","text":"be "},{"type":"text","text":"brief"}]},
            {"role":"user","content":[{"type":"text","text":"say hi","cache_control":{"type":"ephemeral"}}]}],
            "stream":true,"stream_options":{"include_usage":true},"store":false,"max_tokens":9,"max_completion_tokens":4096,
            "tools":[{"type":"function","function":{"name":"read"}}],"tool_choice":"auto","prompt_cache_key":"k"}"#,
        "auto system:be brief user:say hi max=4096 prompt_cache_key:k tools:read stream usage -tools",
    );
    // A tool loop: the assistant's turn has no text, the tool's has.
    check(
        chat,
        r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"tool_calls":[{}],"reasoning_content":"r"},
            {"role":"tool","tool_call_id":"1","content":"42"}]}"#,
        "auto user:q assistant: tool:42",
    );
    // Everything a sampler can be told.
    check(
        chat,
        &format!(
            r#"{{{hi},"temperature":0,"top_p":1,"min_p":0.05,"top_k":40,"repetition_penalty":1.1,"seed":7,"max_tokens":5,"ignore_eos":true}}"#
        ),
        "auto user:hi temperature=0 top_p=1 min_p=0.05 penalty=1.1 top_k=40 max=5 seed=7 ignore_eos",
    );
    check(chat, &format!(r#"{{{hi},"stop":"END"}}"#), "auto user:hi stop=END");
    check(chat, &format!(r#"{{{hi},"stop":["a","","b"]}}"#), "auto user:hi stop=a stop=b");
    // Numbers that mean "no": nothing is ignored, since nothing was asked.
    check(
        chat,
        &format!(
            r#"{{{hi},"tools":[],"logprobs":false,"presence_penalty":0.0,"response_format":{{"type":"text"}},"n":1,"top_k":-1}}"#
        ),
        "auto user:hi top_k=0",
    );
    check(
        chat,
        &format!(r#"{{{hi},"presence_penalty":0.5,"response_format":{{"type":"json_object"}}}}"#),
        "auto user:hi presence=0.5 -response_format",
    );
    check(
        chat,
        &format!(r#"{{{hi},"frequency_penalty":-0.5,"logit_bias":{{"7":-100,"42":1.5}}}}"#),
        "auto user:hi frequency=-0.5 bias[42]=1.5 bias[7]=-inf",
    );
    // llama.cpp's names.
    check(
        chat,
        &format!(
            r#"{{{hi},"repeat_penalty":1.2,"repeat_last_n":-1,"typical_p":0.9,"xtc_probability":0.5,"xtc_threshold":0.2}}"#
        ),
        &format!("auto user:hi penalty=1.2 xtc=0.5 typical=0.9 above=0.2 window={}", usize::MAX),
    );
    check(
        chat,
        &format!(r#"{{{hi},"top_n_sigma":1.5,"dry_multiplier":0.8,"dry_penalty_last_n":64}}"#),
        r#"auto user:hi sigma=1.5 dry=0.8,1.75,2,64,["\n", ":", "\"", "*"]"#,
    );
    let own =
        r#""dry_multiplier":1,"dry_base":1.5,"dry_allowed_length":3,"dry_sequence_breakers":["."]"#;
    check(
        chat,
        &format!("{{{hi},{own}}}"),
        &format!(r#"auto user:hi dry=1,1.5,3,{},["."]"#, usize::MAX),
    );
    check(chat, &format!(r#"{{{hi},"dry_multiplier":0,"dry_base":2}}"#), "auto user:hi");
    // Seeds of 64 bits, with and without a sign.
    check(
        chat,
        &format!(r#"{{{hi},"seed":18446744073709551615}}"#),
        &format!("auto user:hi seed={}", u64::MAX),
    );
    check(chat, &format!(r#"{{{hi},"seed":-1}}"#), &format!("auto user:hi seed={}", u64::MAX));
    // No bound, and a name that is not asked.
    check(chat, &format!(r#"{{{hi},"max_tokens":-1}}"#), "auto user:hi");
    check(
        chat,
        &format!(r#"{{{hi},"max_completion_tokens":3,"max_tokens":-7}}"#),
        "auto user:hi max=3",
    );
    check(chat, &format!(r#"{{{hi},"max_tokens":0}}"#), "! max_tokens: 0 is less than 1");
    // Texts and lists that would cost every token.
    let long = "a".repeat(1025);
    check(
        chat,
        &format!(r#"{{{hi},"stop":["x","{long}"]}}"#),
        "! stop[1]: 1025 bytes were sent, at most 1024 are used",
    );
    let biases: Vec<String> = (0..1025).map(|id| format!(r#""{id}":1"#)).collect();
    check(
        chat,
        &format!(r#"{{{hi},"logit_bias":{{{}}}}}"#, biases.join(",")),
        "! logit_bias: 1025 tokens were sent, at most 1024 are used",
    );
    check(
        chat,
        &format!(r#"{{{hi},"dry_sequence_breakers":[1]}}"#),
        "! dry_sequence_breakers[0]: a string is expected, this is a number",
    );
}

#[test]
fn answers_scores_circles_and_thoughts() {
    #[track_caller]
    fn with(field: &str, expect: &str) {
        let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
        let expect = match expect.strip_prefix('!') {
            Some(refused) => format!("!{refused}"),
            None => format!("auto user:hi {expect}").trim_end().to_owned(),
        };
        check(chat, &format!("{{{hi},{field}}}"), &expect);
    }
    with(r#""n":8,"best_of":8"#, "n=8");
    with(r#""n":9"#, "! n: 9 is more than 8");
    with(r#""n":0"#, "! n: 0 is less than 1");
    let best = "! best_of: all answers are given; leave it out, and set `n`";
    with(r#""n":2,"best_of":4"#, best);
    with(r#""logprobs":true"#, "scores=0");
    with(r#""logprobs":true,"top_logprobs":20"#, "scores=20");
    with(r#""logprobs":false,"top_logprobs":0"#, "");
    with(r#""top_logprobs":3"#, "! top_logprobs: it needs `logprobs` to be true");
    with(r#""logprobs":false,"top_logprobs":3"#, "! top_logprobs: it needs `logprobs` to be true");
    with(r#""logprobs":true,"top_logprobs":21"#, "! top_logprobs: 21 is more than 20");
    with(r#""logprobs":3"#, "! logprobs: true or false is expected, this is a number");
    with(r#""circles":"retry""#, "circles=Retry");
    let policies = r#"! circles: "off", "end" or "retry" is expected"#;
    with(r#""circles":"on""#, policies);
    with(r#""reasoning_effort":"none""#, "think=Off");
    with(r#""reasoning_effort":"minimal""#, "think=On effort=Low");
    with(r#""chat_template_kwargs":{"enable_thinking":false}"#, "think=Off");
    with(r#""chat_template_kwargs":{"thinking":true}"#, "think=On");
    with(r#""chat_template_kwargs":{"reasoning_effort":"high"}"#, "think=On effort=High");
    // OpenAI's own field says more.
    let both = r#""reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":true}"#;
    with(both, "think=Off");
    with(r#""chat_template_kwargs":{"x":1,"thinking":null}"#, "-chat_template_kwargs");
    with(
        r#""chat_template_kwargs":{"enable_thinking":"no"}"#,
        "! chat_template_kwargs.enable_thinking: true or false is expected, this is a string",
    );
    with(
        r#""reasoning_effort":"some""#,
        "! reasoning_effort: `none`, `minimal`, `low`, `medium`, `high` or `xhigh` is expected",
    );
}

#[test]
fn what_a_request_belongs_to() {
    let hi = r#"{"role":"user","content":"hi"}"#;
    let call = r#"{"role":"assistant","content":"c","tool_calls":[{},{}]}"#;
    let answer = r#"{"role":"tool","content":"r"}"#;
    #[track_caller]
    fn with(messages: &[&str], fields: &str, expect: &str) {
        let body = format!(r#"{{"messages":[{}]{fields}}}"#, messages.join(","));
        let context = chat(body.as_bytes()).expect("a chat").0.context;
        let mut words: Vec<String> =
            context.ids.iter().map(|(name, id)| format!("{name}:{id}")).collect();
        words.extend(context.tools);
        words.extend(context.open_calls.then(|| "open".to_owned()));
        assert_eq!(words.join(" "), expect);
    }
    with(&[hi], "", "");
    with(
        &[hi],
        r#","user":"u","prompt_cache_key":"k","metadata":{"user_id":"m"}"#,
        "user:u prompt_cache_key:k metadata.user_id:m",
    );
    // Other types were never refused.
    with(&[hi], r#","user":1,"prompt_cache_key":[],"metadata":"m","tools":7,"functions":[1]"#, "");
    // Three ways to write a tool down.
    with(
        &[hi],
        r#","tools":[{"type":"function","function":{"name":"a"}},{"name":"b"},{"type":"web_search"}],"functions":[{"name":"c"}]"#,
        "a b c",
    );
    // Calls are open until each has its answer; only the last turn's count.
    with(&[hi, call], "", "open");
    with(&[hi, call, answer], "", "open");
    with(&[hi, call, answer, hi], "", "open");
    with(&[hi, call, answer, answer], "", "");
    with(&[hi, call, r#"{"role":"assistant","content":"d"}"#, hi], "", "");
    with(&[hi, r#"{"role":"assistant","content":"","function_call":{"name":"f"}}"#], "", "open");
}

#[test]
fn raw_prompts() {
    check(completion, r#"{"prompt":"Once"}"#, "auto text:Once max=16");
    check(
        completion,
        r#"{"prompt":"Once","logprobs":5,"n":2}"#,
        "auto text:Once max=16 n=2 scores=5",
    );
    check(completion, r#"{"prompt":"Once","logprobs":false}"#, "auto text:Once max=16");
    check(
        completion,
        r#"{"prompt":"Once","logprobs":1,"echo":true}"#,
        "! logprobs: with `echo` the prompt would need them too, and it is not scored",
    );
    check(
        completion,
        r#"{"prompt":["Once"],"echo":true,"max_tokens":3}"#,
        "auto text:Once max=3 echo=Once",
    );
    check(completion, r#"{"prompt":[1,2,3],"suffix":""}"#, "auto tokens:[1, 2, 3] max=16");
    check(
        completion,
        r#"{"prompt":[[1,2]],"temperature":0}"#,
        "auto tokens:[1, 2] temperature=0 max=16",
    );
    check(
        completion,
        r#"{"prompt":["a","b"]}"#,
        "! prompt: only one prompt per request is answered",
    );
    check(completion, r#"{"prompt":[]}"#, "! prompt: at least one token is needed");
    check(
        completion,
        r#"{"prompt":[1,-1]}"#,
        "! prompt[1]: a token id is expected, this is a number",
    );
    check(
        completion,
        r#"{"prompt":7}"#,
        "! prompt: a string, or an array of token ids is expected, this is a number",
    );
    check(completion, "{}", "! prompt: it is needed");
    check(
        completion,
        r#"{"prompt":"a","suffix":"b"}"#,
        "auto text:a max=16 before a suffix -suffix",
    );
}

#[test]
fn a_bad_field_is_named() {
    let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
    let with = |field: &str| format!("{{{hi},{field}}}");
    check(chat, "{}", "! messages: an array of messages is needed");
    check(chat, r#"{"messages":[]}"#, "! messages: at least one message is needed");
    check(chat, r#"{"messages":"hi"}"#, "! messages: an array is expected, this is a string");
    check(chat, r#"{"messages":["hi"]}"#, "! messages[0]: an object is expected, this is a string");
    check(
        chat,
        r#"{"messages":[{"role":"user","content":"a"},{"role":"robot","content":"b"}]}"#,
        "! messages[1].role: `system`, `developer`, `user`, `assistant` or `tool` is expected",
    );
    check(chat, r#"{"messages":[{"role":"user"}]}"#, "! messages[0].content: a text is needed");
    check(
        chat,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}}]}]}"#,
        "! messages[0].content[1].type: only parts of type `text` can be read by this model",
    );
    check(chat, &with(r#""temperature":3"#), "! temperature: 3 is not between 0 and 2");
    check(
        chat,
        &with(r#""temperature":"hot""#),
        "! temperature: a number is expected, this is a string",
    );
    check(chat, &with(r#""top_p":1.5"#), "! top_p: 1.5 is not between 0 and 1");
    check(chat, &with(r#""top_k":1.5"#), "! top_k: a whole number is expected, this is a number");
    check(chat, &with(r#""max_tokens":0"#), "! max_tokens: 0 is less than 1");
    check(chat, &with(r#""stop":[1]"#), "! stop[0]: a string is expected, this is a number");
    check(
        chat,
        &with(r#""stream":"yes""#),
        "! stream: true or false is expected, this is a string",
    );
    check(
        chat,
        &with(r#""stream_options":{"include_usage":1}"#),
        "! stream_options.include_usage: true or false is expected, this is a number",
    );
    check(chat, &with(r#""logit_bias":{"x":1}"#), "! logit_bias.x: the key is no token id");
    check(
        chat,
        &with(r#""logit_bias":{"7":101}"#),
        "! logit_bias.7: a number from -100 to 100 is expected, this is a number",
    );
    check(chat, &with(r#""model":4"#), "! model: a string is expected, this is a number");
}

#[test]
fn what_is_not_json() {
    for body in ["", "{", "nul", "[1,", "\u{0}", r#"{"a":"\ud800"}"#] {
        let refusal = chat(body.as_bytes()).expect_err(body);
        assert_eq!(refusal.code(), "invalid_json", "{body}");
    }
    // Deep nesting must not end the process.
    let deep = "[".repeat(100_000);
    assert_eq!(chat(deep.as_bytes()).expect_err("deep").code(), "invalid_json");
    assert_eq!(chat(b"[]").expect_err("a list").code(), "invalid_json");
    assert_eq!(chat(b"\xff\xfe").expect_err("not UTF-8").code(), "invalid_json");
}

#[test]
fn a_route_body_is_a_text_or_a_chat() {
    let turns = |body: &str| match route(body.as_bytes()) {
        Ok(Ask { input: Input::Chat(turns), model, .. }) => format!("{model} {}", turns.len()),
        Ok(other) => format!("{other:?}"),
        Err(refusal) => refusal.to_string(),
    };
    assert_eq!(turns(r#"{"text":"what is a tort?"}"#), "auto 1");
    let two = r#"{"model":"law","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}]}"#;
    assert_eq!(turns(two), "law 2");
    let gap = route(br#"{"prompt":"def f(","suffix":"return"}"#).expect("a prompt");
    assert!(gap.context.suffix && gap.input == Input::Text("def f(".into()));
    assert_eq!(turns("{}"), "text: send `text`, or `messages` as for chat/completions");
}
