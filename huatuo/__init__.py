"""the assistant: models, engines, prompts, safety, arena, web shell and pages."""
