"""What dp-accounting says of schedules of charges.

Reads JSON from standard input: a list of {"charges": [["gaussian" or "laplace", noise multiplier], ...], "rho": sum, "delta": delta}, where
a Gaussian's noise multiplier is its standard deviation and a Laplace's its scale, for one person who changes the answer by 1.
Writes a list of
  pld:    epsilon at delta by privacy loss distributions, rounded up by no more than their grid
  rdp:    epsilon at delta by Renyi orders, on a fine grid of them
  slope:  the largest Renyi divergence divided by its order: what zCDP must be at least
  exact:  epsilon at delta of `rho` in zCDP, by proposition 12 of Canonne, Kamath and Steinke 2020, minimized with 60 digits
"""

import json
import math
import multiprocessing
import sys

import mpmath
import numpy as np
from dp_accounting import dp_event
from dp_accounting.pld import pld_privacy_accountant
from dp_accounting.rdp import rdp_privacy_accountant

ORDERS = np.unique(np.concatenate([1 + np.logspace(-2.9, 5, 1_000), [1e6]])).tolist()


def event(kind, multiplier):
    if kind == "gaussian":
        return dp_event.GaussianDpEvent(multiplier)
    if kind == "laplace":
        return dp_event.LaplaceDpEvent(multiplier)
    raise ValueError(kind)


def exact(rho, delta):
    mpmath.mp.dps = 60
    rho, delta = mpmath.mpf(rho), mpmath.mpf(delta)

    def epsilon(a):
        return a * rho + mpmath.log(1 / (a * delta)) / (a - 1) + mpmath.log1p(-1 / a)

    # Its derivative in the order has one zero; found by bisection of the logarithm.
    low, high = mpmath.mpf(-12), mpmath.mpf(40)
    for _ in range(180):
        middle = (low + high) / 2
        a = 1 + mpmath.exp(middle)
        slope = rho - mpmath.log(1 / (a * delta)) / (a - 1) ** 2
        low, high = (middle, high) if slope < 0 else (low, middle)
    best = max(epsilon(1 + mpmath.exp(high)), mpmath.mpf(0))
    return mpmath.nstr(best, 40)


def answer(schedule):
    # Fine beside the answer: the grid's steps add up over a schedule.
    grid = 1e-3 * math.sqrt(schedule["rho"])
    pld = pld_privacy_accountant.PLDAccountant(value_discretization_interval=grid)
    rdp = rdp_privacy_accountant.RdpAccountant(orders=ORDERS)
    for kind, multiplier in schedule["charges"]:
        pld.compose(event(kind, multiplier))
        rdp.compose(event(kind, multiplier))
    return {
        "pld": pld.get_epsilon(schedule["delta"]),
        "rdp": rdp.get_epsilon(schedule["delta"]),
        "slope": float(np.max(np.asarray(rdp._rdp) / np.asarray(ORDERS))),
        "exact": exact(schedule["rho"], schedule["delta"]),
    }


if __name__ == "__main__":
    schedules = json.load(sys.stdin)
    with multiprocessing.Pool() as pool:
        json.dump(pool.map(answer, schedules, chunksize=8), sys.stdout)
