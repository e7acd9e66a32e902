"""Open-ended benchmarks in their own file formats, one small file each, all of one shape.

Each module holds plain functions:

``read_questions(path)`` -> `items.Question` list; ``read_answers(path)`` -> `items.Answer` list and
``write_answers(path, answers)``; ``read_judgments(path)`` -> `judgments.Game` or `judgments.Grade` list and
``write_judgments(path, judgments)``; ``judge_messages(...)`` -> what the judge is sent; ``parse_verdict(text)`` -> what
its reply says, None if it says nothing that counts; and the figure the benchmark publishes, under its own name.

What is read and written again is the same, fields we do not know included. Questions of the known versions are
recognised by sha256 (`items.question_version`). Every error is a `DataError` that names file, line and field.
Creative-Writing-Bench and WildBench's tasks may not be shipped: their files come from the user.
"""
