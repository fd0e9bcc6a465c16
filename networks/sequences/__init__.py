"""Networks that read a source of tokens and answer it: Seq2Seq, HRED, VHRED, CausalLM.

A rollout is cut where a source is read (`replies`), a reader and attention look at the source, and
a core of ours writes. Imports core and networks. Another kind of reader or score is one class here.
"""
