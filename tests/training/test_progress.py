from slackdlm.training.progress import evaluation_line


def test_an_evaluation_is_one_line_and_what_is_missing_is_left_out() -> None:
    figures = {"eval_ce": 3.25, "eval_objective": 2.5, "eval_ce_t00_25": 1.0, "eval_ce_t25_50": 5.5}
    plain = "step 40: eval CE 3.25 (by t 1 5.5), objective 2.5"
    assert evaluation_line(40, figures) == plain
    slack = {
        "eval_slack_share": 0.125,
        "eval_slack_share_drawn": 0.2,
        "eval_alignment_entropy": 0.31,
    }
    assert evaluation_line(40, figures | slack) == (
        f"{plain}; slack 12.5% expected, 20.0% drawn, alignment entropy 0.31 nats"
    )
