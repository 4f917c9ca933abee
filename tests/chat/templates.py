"""Chat templates in the styles of many models, and conversations for them."""

# ruff: noqa: E501 - a line break is part of a template

from __future__ import annotations

from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
    "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_WITH_A_SYSTEM_MESSAGE = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' ~ message.role }}
    {{- '\\n' ~ (message.content | trim) ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA_2 = """\
{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set first = messages[0]['content'] %}{% else %}
{% set rest = messages %}{% set first = false %}{% endif %}{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{% if loop.index0 == 0 and first != false %}
{% set content = '<<SYS>>\\n' + first + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
LLAMA_3 = """\
{% set loop_messages = messages %}{% for message in loop_messages %}
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim %}
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content + '<|eot_id|>' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
MISTRAL = """\
{{ bos_token }}{% for message in messages if message.role != 'system' %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}
{%- else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"""
ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
GEMMA = """\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}
{%- else %}{% set role = message['role'] %}{% endif %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""
PHI = """\
{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}
{{- '<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}
{{- '<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}
{{- '<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
VICUNA = """\
{% if messages[0].role == 'system' %}{{ messages[0].content }} {% endif %}{% for m in messages %}
{%- if m.role == 'user' %}USER: {{ m.content }} {% elif m.role == 'assistant' %}ASSISTANT: {{ m.content }}</s>
{%- endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"""
ALPACA = """\
{%- for m in messages -%}{%- set names = {'user': 'Instruction', 'assistant': 'Response', 'system': 'System'} -%}
### {{ names.get(m['role'], m['role'] | title) }}:
{{ m['content'] | trim | replace('\\n\\n', '\\n') }}

{% endfor -%}{% if add_generation_prompt %}### Response:
{% endif %}"""
FALCON = """\
{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}
{%- if message.role == 'assistant' %}Falcon: {{ message.content }}{% else %}{{ message.role | capitalize }}: \
{{ message.content.replace('\\r\\n', '\\n') }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '\\n' + 'Falcon:' }}{% endif %}"""
COMMAND = """\
{{- bos_token }}{% macro turn(role, text) %}<|START_OF_TURN_TOKEN|><|{{ role | upper }}_TOKEN|>{{ text }}\
<|END_OF_TURN_TOKEN|>{% endmacro %}{% for m in messages %}{{ turn('chatbot' if m.role == 'assistant' else m.role, \
m.content.strip()) }}{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"""
DEEPSEEK = """\
{%- set ns = namespace(system='', first=true) %}{%- for message in messages %}{%- if message.role == 'system' %}
{%- if ns.first %}{%- set ns.system = ns.system + message.content %}{%- set ns.first = false %}{%- else %}
{%- set ns.system = ns.system + '\\n\\n' + message.content %}{%- endif %}{%- endif %}{%- endfor %}
{{- bos_token ~ ns.system }}{%- for message in messages %}{%- if message.role == 'user' %}
{{- '<|User|>' + message.content }}{%- elif message.role == 'assistant' %}
{%- set content = message.content.split('</think>')[-1] if '</think>' in message.content else message.content %}
{{- '<|Assistant|>' + content + '<|end|>' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|Assistant|><think>\\n' }}{%- endif %}"""
TRAINING = """\
{% for m in messages %}{% if m.role == 'assistant' %}[A]{% generation %}{% set said = m.content %}{{ said }}|\
{% endgeneration %}{% else %}[{{ m.role }}]{{ m.content }}|{% endif %}{{ said is defined }}{% endfor %}"""
SHORTENING = """\
{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{% if loop.index0 > 4 %}{% break %}{% endif %}
{{ loop.index }}. {{ m.content[:12] }}{{ '...' if m.content | length > 12 }}
{% endfor %}{{ messages | map(attribute='role') | unique | join(',') }} {{ messages | selectattr('role', 'equalto', \
'user') | list | length }} {{ strftime_now('%Y') }}"""
JSON = "{{ messages | tojson }}\n{{ messages[0] | tojson(indent=2) }}{{ messages[-1] | tojson(separators=(',', ':')) }}"
SORTED_JSON = "{{ messages[0] | tojson(sort_keys=True, ensure_ascii=True, indent=1) }}{{ missing }}{{ none_here is defined }}"
DOCUMENTS = """\
{{ tools is none }}{{ documents is none }}{{ tools is defined }}{{ add_generation_prompt }}{{ unk_token }}
{% for m in messages | reverse %}{{ m.role }}{{ ' ' * 2 }}{% endfor %}"""
QWEN_TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nYou may call functions. Signatures within <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
MISTRAL_TOOLS = """\
{{- bos_token }}{%- set ns = namespace(index=0) %}{%- for message in messages %}
{%- if message['role'] == 'user' %}{%- set ns.index = ns.index + 1 %}
{%- if tools is not none and ns.index == messages | selectattr('role', 'equalto', 'user') | list | length %}
{{- '[AVAILABLE_TOOLS] [' }}{%- for tool in tools %}{%- set tool = tool.function %}{{- '{"type": "function", "function": {' }}
{%- for key, val in tool.items() if key != 'return' %}{%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
{%- else %}{{- '"' + key + '": ' + val | tojson }}{%- endif %}{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}
{{- '}}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- '] [/AVAILABLE_TOOLS]' }}{%- endif %}
{{- '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message.tool_calls is defined and message.tool_calls is not none %}{{- '[TOOL_CALLS] [' }}
{%- for tool_call in message.tool_calls %}{%- set out = tool_call.function | tojson %}{{- out[:-1] }}
{{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']' + eos_token }}
{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] | trim + eos_token }}
{%- elif message['role'] == 'tool' %}{{- '[TOOL_RESULTS] {"content": ' + message.content | string + ', "call_id": "' + \
message.tool_call_id + '"}[/TOOL_RESULTS]' }}{%- endif %}{%- endfor %}"""
LLAMA_TOOLS = """\
{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n' }}
{%- if tools is not none %}{{- 'Functions:\\n' }}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
{%- endif %}{{- '<|eot_id|>' }}{%- for message in messages %}
{%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- elif 'tool_calls' in message %}{%- if not message.tool_calls | length == 1 %}{{- raise_exception('one call only') }}
{%- endif %}{%- set tool_call = message.tool_calls[0].function %}{{- '{"name": "' + tool_call.name + '", ' }}
{{- '"parameters": ' }}{{- tool_call.arguments | tojson }}{{- '}<|eot_id|>' }}
{%- elif message.role == 'tool' or message.role == 'ipython' %}{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
{%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}{{- '<|eot_id|>' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
HERMES_MACROS = """\
{%- macro kind(spec) %}{%- if spec.type == 'array' %}list[{{ kind(spec['items']) }}]{%- elif spec.type is string %}\
{{ {'string': 'str', 'integer': 'int'}[spec.type] | default(spec.type) }}{%- else %}{{ spec.type | join('|') }}\
{%- endif %}{%- endmacro %}{{ bos_token }}{% for tool in tools or [] %}{{ tool.function.name }}({% for name, spec in \
tool.function.parameters.properties.items() %}{{ name }}: {{ kind(spec) }}{% if not loop.last %}, {% endif %}\
{% endfor %}): {{ tool.function.description }}
{% endfor %}{% for m in messages %}{{ m.role }}:{{ m.content or (m.tool_calls | map(attribute='function.name') | \
join(' ')) }}
{% endfor %}"""

TEMPLATES = {
    "chatml": CHATML,
    "chatml-system": CHATML_WITH_A_SYSTEM_MESSAGE,
    "llama-2": LLAMA_2,
    "llama-3": LLAMA_3,
    "mistral": MISTRAL,
    "zephyr": ZEPHYR,
    "gemma": GEMMA,
    "phi": PHI,
    "vicuna": VICUNA,
    "alpaca": ALPACA,
    "falcon": FALCON,
    "command": COMMAND,
    "deepseek": DEEPSEEK,
    "training": TRAINING,
    "shortening": SHORTENING,
    "json": JSON,
    "sorted-json": SORTED_JSON,
    "documents": DOCUMENTS,
}
"""For plain messages."""
TOOL_TEMPLATES = {
    "qwen-tools": QWEN_TOOLS,
    "mistral-tools": MISTRAL_TOOLS,
    "llama-tools": LLAMA_TOOLS,
    "hermes-macros": HERMES_MACROS,
}
"""For messages with tools and calls."""

PLAIN: list[dict[str, Any]] = [
    {"role": "system", "content": "  Ẹ káàárọ̀ <b> & 'x' \"y\"\n"},
    {"role": "user", "content": "Ina kwana?\r\n\r\nYaya aiki?"},
    {"role": "assistant", "content": "<think>hm</think> Lafiya lau. "},
    {"role": "user", "content": "Kedu ka ị mere? 👩🏿‍🌾 {{ messages }} {% if %}"},
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Ojú ọjọ́ ní ìlú kan",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "unit": {"type": ["string", "null"]},
            },
            "required": ["city"],
        },
    },
}
CALLING: list[dict[str, Any]] = [
    {"role": "system", "content": "Jẹ́ kúkúrú."},
    {"role": "user", "content": "Báwo ni ojú ọjọ́ ní Ìbàdàn?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "abcDEF123",
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "Ìbàdàn <1>", "days": [1, 2]}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "abcDEF123", "name": "get_weather", "content": "31"},
    {"role": "assistant", "content": "Ó gbóná."},
    {"role": "user", "content": "Ẹ ṣé"},
]
