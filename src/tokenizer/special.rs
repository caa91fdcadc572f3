//! The special tokens of SmolLM2 and the chat template that uses them (tokenizer_config.json of
//! SmolLM2-Instruct).

/// End of a document. Also beginning of sequence and unknown token of the base models.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Opens a chat message; the role follows.
pub const IM_START: &str = "<|im_start|>";
/// Closes a chat message.
pub const IM_END: &str = "<|im_end|>";

/// The 17 special tokens; a token's place in this list is its id.
pub const SPECIAL_TOKENS: [&str; 17] = [
    END_OF_TEXT,
    IM_START,
    IM_END,
    "<repo_name>",
    "<reponame>",
    "<file_sep>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
];

/// The system message that a chat starts with when it brings none.
const DEFAULT_SYSTEM_PROMPT: &str = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

/// The chat format as a Jinja template, as `tokenizer_config.json` of a chat model holds it.
///
/// Each message is `<|im_start|>role\ncontent<|im_end|>\n`; a chat without a system message first gets
/// the default one; `add_generation_prompt` opens the assistant's turn.
pub fn chat_template() -> String {
    let message = |role: &str, content: &str| {
        format!("{{{{ '{IM_START}' + {role} + '\\n' + {content} + '{IM_END}' + '\\n' }}}}")
    };
    [
        "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}",
        &message("'system'", &format!("'{DEFAULT_SYSTEM_PROMPT}'")),
        "{% endif %}",
        &message("message['role']", "message['content']"),
        "{% endfor %}{% if add_generation_prompt %}",
        &format!("{{{{ '{IM_START}' + 'assistant' + '\\n' }}}}"),
        "{% endif %}",
    ]
    .concat()
}
