"""The command line, `llmcc`: one module per verb, imported when the verb is used."""
