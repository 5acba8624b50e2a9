// SPDX-License-Identifier: Apache-2.0
//
// unified_unit with flat ports, on its memories and a stream of blocks, all of which Python fills and reads.
module tb_unified_unit (
  input  logic         clk_i,
  input  logic         rst_ni,
  // memories: one access a cycle, read data ActLatency later
  input  logic [2:0]   host_memory_i,  // 0 ACT, 1 RES, 2 QUEUE, 3 blocks of the stream, 4 logits (read only)
  input  logic         host_we_i,
  input  logic         host_ren_i,
  input  logic [15:0]  host_addr_i,
  input  logic [codesign_pkg::BlockBits-1:0] host_wdata_i,
  output logic         host_ready_o,
  output logic [codesign_pkg::BlockBits-1:0] host_rdata_o,
  // stream: blocks 0 .. block_limit - 1 are there; chances of 128 that a block or the K and V port are not
  input  logic [15:0]  block_limit_i,
  input  logic [7:0]   block_stall_i,
  input  logic [7:0]   key_stall_i,
  output logic [15:0]  blocks_o,       // popped
  output logic [15:0]  block_dones_o,
  // norm unit
  input  logic [15:0]  norm_rows_i,
  output logic         norm_wait_o,
  // passes
  input  logic         pass_valid_i,
  output logic         pass_ready_o,
  input  logic [1:0]   pass_kind_i,
  input  logic [3:0]   pass_post_i,
  input  logic [1:0]   pass_source_i,
  input  logic         pass_last_i,
  input  logic [3:0]   pass_planes_i,
  input  logic [2:0]   pass_align_i,
  input  logic         pass_queued_i,
  input  logic [15:0]  pass_queue_base_i,
  input  logic [15:0]  pass_rows_i,
  input  logic [15:0]  pass_keys_i,
  input  logic [15:0]  pass_k_words_i,
  input  logic [15:0]  pass_n_tiles_i,
  input  logic [31:0]  pass_blocks_i,
  input  logic [15:0]  pass_src_base_i,
  input  logic [15:0]  pass_src_stride_i,
  input  logic [15:0]  pass_kv_base_i,
  input  logic [15:0]  pass_dst_base_i,
  input  logic [15:0]  pass_dst_stride_i,
  input  logic [15:0]  pass_column_i,
  input  logic [15:0]  pass_dim_i,
  input  logic [15:0]  pass_multiplier_i,
  input  logic [5:0]   pass_shift_i,
  output logic [15:0]  rows_o,
  output logic         done_o,
  output logic [15:0]  dones_o,
  output logic [3:0]   state_o,
  output logic [31:0]  cycle_o,
  output logic [31:0]  busy_o          // cycles in which a row was read or probabilities were made
);

  localparam int unsigned Simd = codesign_pkg::Simd;
  localparam int unsigned Pe = codesign_pkg::Pe;
  localparam int unsigned BlockBits = codesign_pkg::BlockBits;
  localparam int unsigned ActAddrBits = codesign_pkg::ActAddrBits;
  localparam int unsigned ResAddrBits = codesign_pkg::ResAddrBits;
  localparam int unsigned QueueAddrBits = codesign_pkg::QueueAddrBits;
  localparam int unsigned GranuleBits = codesign_pkg::GranuleBits;
  localparam int unsigned RowBits = codesign_pkg::RowBits;

  codesign_pkg::pass_t      pass;
  logic [RowBits:0]         rows;
  logic                     a_ren, b_req, b_gnt, b_ready, w_valid, res_ren, res_we, queue_ren, logits_valid;
  logic                     block_avail, block_pop, block_done, host_act, host_res, host_queue, host_act_we;
  logic [ActAddrBits-1:0]   a_word, b_word, w_word;
  logic [GranuleBits-1:0]   a_granule, b_granule, w_granule;
  logic [Simd-1:0][7:0]     a_data, b_data, w_data;
  logic [Simd-1:0]          w_mask;
  logic [ResAddrBits-1:0]   res_raddr, res_waddr;
  logic [Pe-1:0][15:0]      res_rdata, res_wdata, res_host, logits;
  logic [QueueAddrBits-1:0] queue_addr;
  logic [31:0]              queue_rdata;
  logic [RowBits-1:0]       logits_row;

  always_comb begin
    pass.kind = codesign_pkg::pass_kind_t'(pass_kind_i);
    pass.post = codesign_pkg::pass_post_t'(pass_post_i);
    pass.source = codesign_pkg::row_source_t'(pass_source_i);
    pass.last = pass_last_i;
    pass.planes = pass_planes_i;
    pass.align = pass_align_i;
    pass.queued = pass_queued_i;
    pass.queue_base = QueueAddrBits'(pass_queue_base_i);
    pass.rows = pass_rows_i;
    pass.keys = pass_keys_i;
    pass.k_words = pass_k_words_i;
    pass.n_tiles = pass_n_tiles_i;
    pass.blocks = pass_blocks_i;
    pass.src_base = pass_src_base_i;
    pass.src_stride = pass_src_stride_i;
    pass.kv_base = pass_kv_base_i;
    pass.dst_base = pass_dst_base_i;
    pass.dst_stride = pass_dst_stride_i;
    pass.column = pass_column_i;
    pass.dim = pass_dim_i;
    pass.multiplier = pass_multiplier_i;
    pass.shift = pass_shift_i;
  end

  assign rows_o = 16'(rows);

  unified_unit u_unified (
    .clk_i, .rst_ni, .pass_i(pass), .pass_valid_i, .pass_ready_o, .rows_o(rows), .done_o, .state_o,
    .norm_rows_i((RowBits+1)'(norm_rows_i)), .norm_wait_o,
    .block_avail_i(block_avail), .block_pop_o(block_pop), .block_i(block_out_q), .block_done_o(block_done),
    .a_ren_o(a_ren), .a_word_o(a_word), .a_granule_o(a_granule), .a_data_i(a_data),
    .b_req_o(b_req), .b_word_o(b_word), .b_granule_o(b_granule), .b_gnt_i(b_gnt), .b_data_i(b_data),
    .w_valid_o(w_valid), .w_word_o(w_word), .w_granule_o(w_granule), .w_data_o(w_data), .w_mask_o(w_mask),
    .res_ren_o(res_ren), .res_raddr_o(res_raddr), .res_rdata_i(res_rdata),
    .res_we_o(res_we), .res_waddr_o(res_waddr), .res_wdata_o(res_wdata),
    .queue_ren_o(queue_ren), .queue_addr_o(queue_addr), .queue_rdata_i(queue_rdata),
    .logits_valid_o(logits_valid), .logits_row_o(logits_row), .logits_o(logits)
  );

  // ---- memories ----
  assign host_act = host_memory_i == 3'd0;
  assign host_res = host_memory_i == 3'd1;
  assign host_queue = host_memory_i == 3'd2;
  assign host_act_we = host_we_i && host_act && !w_valid;
  assign host_ready_o = !(host_act && w_valid);

  act_memory u_act (
    .clk_i,
    .a_ren_i(a_ren || (host_ren_i && host_act)), .a_word_i(host_ren_i && host_act ? ActAddrBits'(host_addr_i) : a_word),
    .a_granule_i(host_ren_i && host_act ? '0 : a_granule), .a_data_o(a_data),
    .b_req_i(b_req && !key_stall), .b_word_i(b_word), .b_granule_i(b_granule), .b_ready_o(b_ready), .b_data_o(b_data),
    .w_valid_i(w_valid || host_act_we), .w_word_i(w_valid ? w_word : ActAddrBits'(host_addr_i)),
    .w_granule_i(w_valid ? w_granule : '0), .w_data_i(w_valid ? w_data : host_wdata_i[Simd*8-1:0]),
    .w_mask_i(w_valid ? w_mask : '1)
  );
  assign b_gnt = b_ready && !key_stall;

  res_memory u_res (
    .clk_i, .a_ren_i(res_ren), .a_addr_i(res_raddr), .a_data_o(res_rdata),
    .b_ren_i(host_ren_i && host_res), .b_addr_i(ResAddrBits'(host_addr_i)), .b_data_o(res_host),
    .we_i(res_we || (host_we_i && host_res)), .waddr_i(res_we ? res_waddr : ResAddrBits'(host_addr_i)),
    .wdata_i(res_we ? res_wdata : host_wdata_i[Pe*16-1:0])
  );

  sdp_ram #(.Width(32), .Depth(codesign_pkg::QueueWords)) u_queue (
    .clk_i, .we_i(host_we_i && host_queue), .waddr_i(QueueAddrBits'(host_addr_i)), .wdata_i(host_wdata_i[31:0]),
    .ren_i(queue_ren), .raddr_i(queue_addr), .rdata_o(queue_rdata)
  );

  logic [Pe*16-1:0] logits_mem [codesign_pkg::MaxRows];
  logic [Pe*16-1:0] logits_q;

  always_ff @(posedge clk_i) begin
    if (logits_valid) logits_mem[logits_row] <= logits;
    logits_q <= logits_mem[RowBits'(host_addr_i)];
  end

  always_comb begin
    host_rdata_o = '0;
    if (host_act) host_rdata_o[Simd*8-1:0] = a_data;
    if (host_res) host_rdata_o[Pe*16-1:0] = res_host;
    if (host_memory_i == 3'd4) host_rdata_o[Pe*16-1:0] = logits_q;
  end

  // ---- the stream ----
  logic [BlockBits-1:0] blocks [4096];
  logic [BlockBits-1:0] block1_q, block2_q, block_out_q;
  logic                 pop1_q, pop2_q, key_stall;
  logic [15:0]          index_q, dones_q, block_dones_q;
  logic [31:0]          cycle_q, busy_q, random_q;

  assign block_avail = index_q != block_limit_i && {1'b0, random_q[6:0]} >= block_stall_i;
  assign key_stall = {1'b0, random_q[15:9]} < key_stall_i;
  assign blocks_o = index_q;
  assign block_dones_o = block_dones_q;
  assign dones_o = dones_q;
  assign cycle_o = cycle_q;
  assign busy_o = busy_q;

  always_ff @(posedge clk_i) begin
    if (host_we_i && host_memory_i == 3'd3) blocks[host_addr_i[11:0]] <= host_wdata_i;
    pop1_q <= block_pop;
    pop2_q <= pop1_q;
    if (block_pop) block1_q <= blocks[index_q[11:0]];
    if (pop1_q) block2_q <= block1_q;
    if (pop2_q) block_out_q <= block2_q;
    if (block_pop && !block_avail) $error("popped a block that is not there");
    index_q <= index_q + 16'(block_pop);
    dones_q <= dones_q + 16'(done_o);
    block_dones_q <= block_dones_q + 16'(block_done);
    cycle_q <= cycle_q + 32'd1;
    busy_q <= busy_q + 32'(a_ren);
    random_q <= {random_q[30:0], random_q[31] ^ random_q[21] ^ random_q[1] ^ random_q[0]};
    if (!rst_ni) begin
      index_q <= '0;
      dones_q <= '0;
      block_dones_q <= '0;
      cycle_q <= '0;
      busy_q <= '0;
      random_q <= 32'd1;
    end
  end

endmodule
