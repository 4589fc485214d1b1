"""What is wrong with a chain, found by its configuration before anything is measured.

`facts` is what Postfix and amavisd themselves say of their configuration, `reading`
gets it from them, `rule` is what a rule is made of, the `*_rules` hold the rules, and
`auditing` applies them. Nothing here sends mail or changes a file.
"""
