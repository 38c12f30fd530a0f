"""hwcompile generate: token in, token out."""

from __future__ import annotations

import argparse

from hwcompile.compiler import execute as engines
from hwcompile.compiler.commands import common
from hwcompile.compiler.console import Output
from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.vocabulary import END, START, Vocabulary, read_vocabulary

_EXAMPLE = """hwcompile generate model-hwcompile --prompt 12,7,3 --tokens 20
hwcompile generate dates-hwcompile --vocab vocab.json --text "mar 5, 1987\""""


def add(commands: common.Commands) -> None:
    parser = common.command(
        commands, "generate", execute, "let an autoregressive design speak", _EXAMPLE
    )
    parser.add_argument("design", metavar="DIR", help="design bundle")
    parser.add_argument(
        "--prompt", type=common.token_list, metavar="IDS", help="first tokens, like 12,7,3"
    )
    parser.add_argument(
        "--source", type=common.token_list, metavar="IDS", help="the encoder's tokens"
    )
    parser.add_argument(
        "--text", help="prompt as text (the source, where there is an encoder); needs --vocab"
    )
    parser.add_argument("--vocab", metavar="FILE", help="JSON list of strings, index = token id")
    parser.add_argument("--tokens", type=common.positive, metavar="N", help="how many to make")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0: greedy (default)"
    )
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw among the best K")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the draws")
    common.add_engine(parser)
    common.add_json(parser)
    common.add_progress(parser)


def execute(args: argparse.Namespace, output: Output) -> int:
    design = engines.open_design(args.design, args.liberty)
    vocabulary = read_vocabulary(args.vocab) if args.vocab else None
    prompt, source = _tokens(args, design, vocabulary)
    made = engines.generate(
        design,
        prompt,
        source,
        args.tokens,
        args.engine,
        engines.Sampling(args.temperature, args.top_k, args.seed),
        vocabulary.special(END) if vocabulary else None,
    )
    if made.context_full:
        output.message("the context is full")
    text = vocabulary.decode(made.tokens) if vocabulary else None
    output.result(",".join(map(str, made.tokens)))
    if text is not None:
        output.result(text)
    output.document({"prompt": prompt, "source": source, "tokens": made.tokens, "text": text})
    return 0


def _tokens(
    args: argparse.Namespace, design: engines.Design, vocabulary: Vocabulary | None
) -> tuple[list[int], list[int] | None]:
    """Prompt and source, from ids or from text; ``<start>`` begins what has no prompt."""
    prompt, source = args.prompt, args.source
    if args.text is not None:
        if vocabulary is None:
            raise UsageError("--text needs a vocabulary", "give it with --vocab FILE")
        if "once" in design.program.sections:
            source = vocabulary.encode(args.text)
        else:
            prompt = vocabulary.encode(args.text)
    start = vocabulary.special(START) if vocabulary else None
    if prompt is None and start is not None:
        prompt = [start]
    return prompt or [], source
