"""Keep the pages lean: one search box, no Thebe, no links to a repository that does not exist yet.

Jupyter Book puts Thebe's scripts (with an unpkg.com address) into every page even when it is off,
and they log an error on each one. Launch and repository buttons would lead to a dead address while
`_config.yml` still has its placeholder.
"""

PLACEHOLDER = "github.com/OWNER/"


def drop_thebe(app, pagename, templatename, context, doctree):
    """Take Thebe's scripts and styles out of one page."""

    def lean(entries):
        return [e for e in entries if "thebe" not in str(getattr(e, "attributes", e)).lower()
                and "thebe" not in str(getattr(e, "filename", "")).lower()]  # fmt: skip

    context["script_files"] = lean(context.get("script_files", []))
    context["css_files"] = lean(context.get("css_files", []))


def options(app, config):
    """One search box, in the sidebar; without an address, no button that needs one."""
    theme = config.html_theme_options
    theme["navbar_persistent"] = []
    if PLACEHOLDER in theme.get("repository_url", ""):
        theme["launch_buttons"] = {}
        for button in ("repository", "issues", "edit_page"):
            theme[f"use_{button}_button"] = False


def setup(app):
    """Register with Sphinx; Thebe adds its files late, so this runs last."""
    app.connect("config-inited", options)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
