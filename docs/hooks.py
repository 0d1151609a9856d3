"""What mkdocs needs beyond mkdocs.yml: pages that are files elsewhere, and links and roles to rewrite.

Documents are also read in the repository, where they link to files outside docs/. On the site these files are
pages of their own, made here from the files themselves.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository, by where they are pages of the site."""
CODE = re.compile(r"(^```.*?^```|``.+?``|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")
SHAPES = re.compile(r"\]\[(?!rledit\.)")
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>~?([\w.]+)</code>")


def _shown() -> dict[str, str]:
    """Every file that is a page of the site though it does not lie in docs/, and that page's name."""
    shown = dict(PAGES)
    shown |= {
        f"benchmarks/results/{p.name}": f"measurements/{p.name}" for p in _files("benchmarks/results", "*.md")
    }
    shown |= {f"examples/{p.name}": f"examples/{p.stem}.md" for p in _files("examples", "[0-9]*.py")}
    shown["examples/README.md"] = shown["examples"] = "examples/index.md"
    shown["benchmarks/results"] = "measurements/README.md"
    return shown


def _files(folder: str, pattern: str) -> list[Path]:
    return sorted((ROOT / folder).glob(pattern))


def on_config(config: Any) -> Any:
    """The examples' place in the navigation, one entry per script."""
    scripts = {p.stem.replace("_", " "): f"examples/{p.stem}.md" for p in _files("examples", "[0-9]*.py")}
    for entry in config.nav:
        if "Examples" in entry:
            entry["Examples"] = ["examples/index.md", *({title: page} for title, page in scripts.items())]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the files that are not in docs/."""
    for source, page in _shown().items():
        if not (ROOT / source).is_file():
            continue
        text = (ROOT / source).read_text()
        files.append(
            File.generated(config, page, content=_script(source, text) if source.endswith(".py") else text)
        )
    return files


def _script(source: str, text: str) -> str:
    """A script as a page: its docstring, then all of it."""
    title, _, rest = text.split('"""')[1].strip().partition("\n")
    return f'# {title.rstrip(".")}\n\n{rest.strip()}\n\n```python title="{source}"\n{text}```\n'


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files of the repository lead to their pages; shapes like [N][S] are no links."""
    shown = _shown()
    here = page.file.src_uri
    source = next((file for file, name in shown.items() if name == here), f"docs/{here}")

    def rewritten(match: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(os.path.dirname(source), match[1]))
        name = shown.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if name is None:
            return match[0]
        return os.path.relpath(name, os.path.dirname(here) or ".") + (match[2] or "")

    parts = CODE.split(markdown)  # text and code in turn
    parts[::2] = [LINK.sub(rewritten, SHAPES.sub(r"]\[", text)) for text in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Sphinx's roles in docstrings become links."""
    return ROLE.sub(_reference, html)


def _reference(match: re.Match[str]) -> str:
    name = match[1] if "." in match[1] or not match[1][0].isupper() else f"rledit.{match[1]}"
    return f'<autoref identifier="{name}" optional><code>{name.rsplit(".", 1)[-1]}</code></autoref>'
