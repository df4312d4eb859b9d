"""One SDK per file: how planned calls are made."""
