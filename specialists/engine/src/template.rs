//! Chat templates: the Jinja text in the GGUF, rendered over messages.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use thiserror::Error;

use crate::gguf::Gguf;

/// One message as templates see it.
#[derive(Clone, Debug, Serialize)]
pub struct TemplateMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    pub content: String,
}

#[derive(Debug, Error)]
pub enum TemplateError {
    /// The template does not parse, or refuses these messages.
    #[error("the chat template of the model refuses these messages: {0}")]
    Render(String),
}

/// A file's chat template; files without one get ChatML, which the most families understand.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const NAME: &str = "chat";

impl ChatTemplate {
    /// Parses the file's template.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] with the parser's words.
    pub fn read(gguf: &Gguf) -> Result<ChatTemplate, TemplateError> {
        let source = gguf.text("tokenizer.chat_template").unwrap_or(CHATML).to_owned();
        let mut environment = Environment::new();
        // Templates are written for Jinja in Python and call its string methods.
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // As transformers sets it.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| TemplateError::Render(e.to_string()))?);
        environment.add_function(
            "raise_exception",
            |text: String| -> Result<String, minijinja::Error> {
                Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, text))
            },
        );
        environment
            .add_template_owned(NAME, source)
            .map_err(|e| TemplateError::Render(e.to_string()))?;
        let token = |key: &str| {
            let tokens = gguf.meta("tokenizer.ggml.tokens").and_then(|v| v.texts());
            let id = gguf.int(key).and_then(|id| usize::try_from(id).ok());
            tokens.zip(id).and_then(|(t, id)| t.get(id)).cloned().unwrap_or_default()
        };
        let (bos, eos) =
            (token("tokenizer.ggml.bos_token_id"), token("tokenizer.ggml.eos_token_id"));
        Ok(ChatTemplate { environment, bos, eos })
    }

    /// The text of a conversation, ready for the assistant to go on if `add_generation_prompt`.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] when the template refuses, for instance two system messages.
    pub fn render(
        &self,
        messages: &[TemplateMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let fail = |e: minijinja::Error| TemplateError::Render(e.to_string());
        let template = self.environment.get_template(NAME).map_err(fail)?;
        let bos_token = &self.bos;
        let eos_token = &self.eos;
        template
            .render(context! { messages => Value::from(Serde(messages)), add_generation_prompt, bos_token, eos_token, enable_thinking => false })
            .map_err(fail)
    }
}
