"""Open-ended benchmarks in their own file formats, a module each, all of one shape.

Each reads questions, answers and judgments of its tools (``read_questions``, ``read_answers``, ``read_judgments``),
writes answers for them (``write_answers``), builds what a judge is sent (``judge_messages``) and says what a reply
means (``parse_verdict`` and the like; None if it says nothing that counts).

Fields that we do not know stay in ``extra``. Every error is a `DataError` that names file, line and field.
Creative-Writing-Bench and WildBench's tasks may not be shipped: their files come from the user.
"""
