"""How a policy of tokens is played: by beam search, or drawn from a narrowed distribution.

Each stands in an agent's place, and asks it for nothing but `logits`. Imports core, and of
`agents.deep` arithmetic. Another way to decode is a file here and a line in `decoder`.
"""
