"""What makes the documents, which are written for GitHub, a site."""

import posixpath
import re

REPOSITORY = "https://github.com/TinyCloudLabs/tinycloud-peer/blob/main/"
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown, page, config, files):
    """Links to files of the repository that are no pages lead there."""
    here = posixpath.dirname(page.file.src_uri)

    def lead(m):
        target = posixpath.normpath(posixpath.join("docs", here, m[1]))
        if target.startswith("docs/") and target != "docs/site":
            return m[0]
        return f"]({REPOSITORY}{target}{m[2] or ''})"

    return LINK.sub(lead, markdown)
