"""the fixed texts of every model family, byte for byte as its makers wrote them.

A prompt is `system`, then each message between its opening and its closing, then the `opening` of the next answer.
Sources: FreedomIntelligence/HuatuoGPT (finetune.py, huatuo_cli_demo_stream.py), HuatuoGPT-II (cli_demo.py, data_process.py,
evaluation/eval_qa.py), IDEA-CCNL/Fengshenbang-LM (llama_generate.py), SCIR-HI/Huatuo-Llama-Med-Chinese (templates/*.json,
infer_literature.py), SCIR-HI/Med-ChatGLM, and ChatGLM-6B's chat().
"""

from dataclasses import dataclass
from typing import Literal

from huatuo.errors import ConfigError

SYSTEM = (
    "一位用户和智能医疗大模型HuatuoGPT之间的对话。对于用户的医疗问诊，HuatuoGPT给出准确的、详细的、温暖的指导建议。"
    "对于用户的指令问题，HuatuoGPT给出有益的、详细的、有礼貌的回答。"
)
_KNOWLEDGE = "下面是一个问题，运用医学知识来正确回答提问.\n"
_LITERATURE = "以下是描述任务的说明，编写适当地回复完成请求的响应。\n\n ### 说明:\n"


@dataclass(frozen=True)
class Template:
    """The fixed texts of a model family, around each turn; `{round}` counts the patient's turns from 0."""

    patient: str = ""
    doctor: str = ""
    system: str = ""
    patient_end: str = ""
    doctor_end: str = ""
    eos: bool = False
    """An end token closes each of the doctor's turns."""
    last: str | None = None
    """What opens the answer, if not `doctor`."""
    bare_first: bool = False
    """A question without history stands alone, without marks."""
    single: bool = False
    """Takes one question; what was said before is left out."""
    seams: Literal["turns", "text", "tokenizer"] = "text"
    """turns: each turn is tokenised on its own; text: the prompt as one string; tokenizer: its own chat template."""
    closing: tuple[str, ...] = ()
    """Special tokens after the text."""
    encoder: bool = False
    """For an encoder: the end token that the tokenizer adds stays."""
    marks: tuple[str, ...] = ()
    """Regular expressions for what a text could forge; they meet folded text (huatuo/marks.py)."""
    trained: Literal["turns", "next", ""] = ""
    """turns: loss on the doctor's whole turn; next: on the answer, its end where the next turn opens; '': not here."""

    @property
    def opening(self) -> str:
        """What opens the answer."""
        return self.doctor if self.last is None else self.last

    @property
    def supervised(self) -> str:
        """The part of the doctor's mark that training puts loss on."""
        return self.doctor if self.trained == "turns" else ""


_TURNS = (r"[<〈]\s*(?:病人|huatuogpt)\s*[>〉]",)
_LINE = r"(?:^|(?<=[\n\r\x0b\x0c\x85\u2028\u2029]))[^\S\n\r]*"
_GLM = (
    r"\[[gs]?mask\]",
    r"<(?:sop|eop|n|enc|dblock|unused_0|image_\d+|\|tab\||\|blank_\d+\|)>",
)
_HEADING = r"#{2,}\s*(?:问题|回答|说明|回复)\s*:"

FAMILIES: dict[str, Template] = {
    # The paper's training layout.
    "huatuo": Template(
        "<病人>：", "<HuatuoGPT>：", SYSTEM, " ", " ", eos=True,
        seams="turns", marks=_TURNS, trained="turns",
    ),
    "huatuo-nano": Template(
        "<病人>：", "<HuatuoGPT>：", "", " ", " ", eos=True,
        seams="turns", marks=_TURNS, trained="turns",
    ),
    # The public demo's seams: one string, no space before the end token.
    "huatuo-demo": Template("<病人>：", "<HuatuoGPT>：", SYSTEM, " ", "", eos=True, marks=_TURNS),
    # HuatuoGPT-II's evaluator: turns are joined without an end token.
    "huatuo-evaluator": Template("<病人>：", "<HuatuoGPT>：", SYSTEM, " ", "", marks=_TURNS),
    # HuatuoGPT-II: in training the end is taught at the line break that opens the next turn.
    "huatuo2": Template(
        "<问>：", "<答>：", "", "\n", "\n", marks=(r"[<〈]\s*[问答]\s*[>〉]",), trained="next"
    ),
    "ziya": Template(
        "<human>:", "<bot>:", "", "\n", "\n", marks=(r"[<〈]\s*(?:human|bot)\s*[>〉]",)
    ),
    # The instruction alone. It should end in punctuation, or the model goes on with it.
    "bloomz": Template(single=True),
    "bentsao-med": Template(
        "### 问题:\n", "### 回答:\n", _KNOWLEDGE, "\n", single=True, marks=(_HEADING,)
    ),
    "bentsao-bloom": Template("", "### 回答：\n", _KNOWLEDGE, "\n", single=True, marks=(_HEADING,)),
    # Turns stand inside the instruction, with the spaces of data-literature/liver_cancer.json between them.
    "bentsao-literature": Template(
        "<user>: ", " <bot>: ", _LITERATURE, "", " ", last="\n\n### 回复:\n",
        marks=(_HEADING, r"[<〈]\s*(?:user|bot)\s*[>〉]"),
    ),
    "chatglm": Template(
        "[Round {round}]\n问：", "答：", "", "\n", "\n", bare_first=True,
        closing=("[gMASK]", "<sop>"), marks=(r"\[round\s*\d+\s*\]", _LINE + "[问答]:", *_GLM),
    ),
    "chatglm-med": Template(
        "问题：", "答案：", "", "\n", single=True,
        closing=("[gMASK]", "<sop>"), marks=(_LINE + "(?:问题|答案):", *_GLM),
    ),
    "t5": Template(single=True, encoder=True),
    # HuatuoGPT-o1 on LLaMA-3.1 or Qwen2.5, and whatever else brings a chat template.
    "chat": Template(
        seams="tokenizer", marks=(r"<\|[a-z0-9_]{1,40}\|>", r"</?(?:s|think|tool_call|tool_response)>")
    ),
}  # fmt: skip


def template_of(family: str) -> Template:
    """The template. Raises ConfigError naming the known families."""
    if family not in FAMILIES:
        raise ConfigError(f"unknown template {family!r}; one of {', '.join(FAMILIES)}")
    return FAMILIES[family]
