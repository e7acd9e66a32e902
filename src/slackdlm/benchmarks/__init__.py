"""Open-ended benchmarks in their own file formats, small modules all of one shape.

``NAME.py`` says how a benchmark is judged: ``judge_messages(...)`` is what the judge is sent, ``parse_verdict(text)``
what its reply says, None if it says nothing that counts. ``NAME_files.py`` holds its formats (AlpacaEval's are in
``alpaca_eval.py``): ``read_questions(path)`` -> `items.Question` list; ``read_answers(path)`` -> `items.Answer` list
and ``write_answers(path, answers)``; ``read_judgments(path)`` -> `judgments.Game` or `judgments.Grade` list.

Fields that we do not know stay in ``extra``. Every error is a `DataError` that names file, line and field.
Creative-Writing-Bench and WildBench's tasks may not be shipped: their files come from the user.
"""
